"""Plasticity that shares no code with the package: a law for tensors (…, 3, 3), and cells and layers that use it."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from problems import MULTIPLICITY, Direct, stiffness, tensor
from scipy.optimize import brentq, root

from lspipe import Plastic, Swift, Voce


def moduli(material):
    """Bulk and shear modulus."""
    return material.young / 3 / (1 - 2 * material.poisson), material.young / 2 / (1 + material.poisson)


def yield_stress(material, p):
    """σ_y(p), for arrays too."""
    match material.hardening:
        case Voce(saturation, rate, modulus):
            return material.yield_stress + saturation * (1 - np.exp(-rate * p)) + modulus * p
        case Swift(strain, exponent):
            return material.yield_stress * (1 + p / strain) ** exponent
        case modulus:
            return material.yield_stress + modulus * p


def deviator(a):
    return a - np.trace(a, axis1=-2, axis2=-1)[..., None, None] / 3 * np.eye(3)


def update(material, strain, plastic, p):
    """Stress, plastic strain and p after an implicit step to ``strain``; arrays (points, 3, 3)."""
    bulk, shear = moduli(material)
    trial = 2 * shear * deviator(strain - plastic) - 2 / 3 * material.kinematic * plastic
    size = np.sqrt(1.5 * (trial**2).sum(axis=(-2, -1)))
    flows = size > yield_stress(material, p)
    growth = np.zeros_like(size)
    for _ in range(20):  # Newton's method, with the slope of the yield stress by a difference
        limit = yield_stress(material, p + growth)
        slope = (yield_stress(material, p + growth + 1e-7) - limit) / 1e-7
        excess = size - (3 * shear + material.kinematic) * growth - limit
        growth += np.where(flows, excess / (3 * shear + material.kinematic + slope), 0)
    plastic = plastic + 1.5 * (growth / np.maximum(size, 1e-300))[..., None, None] * trial
    pressure = bulk * np.trace(strain, axis1=-2, axis2=-1)[..., None, None] * np.eye(3)
    return pressure + 2 * shear * deviator(strain - plastic), plastic, p + growth


def uniaxial(material, strains):
    """Axial stress of a bar at each of the axial strains, which may reverse."""
    plastic = back = p = 0.0
    stresses = []
    for strain in strains:
        trial = material.young * (strain - plastic) - back
        sign = np.sign(trial)

        def excess(growth, trial=trial, p=p):
            return abs(trial) - (material.young + material.kinematic) * growth - yield_stress(material, p + growth)

        growth = brentq(excess, 0, abs(trial) / material.young, xtol=1e-17, rtol=1e-15) if excess(0) > 0 else 0.0
        plastic, back, p = plastic + sign * growth, back + sign * material.kinematic * growth, p + growth
        stresses.append(material.young * (strain - plastic))
    return np.array(stresses)


@dataclass
class Points:
    """Materials at integration points, and their states."""

    materials: list[Any]
    number: np.ndarray  # of the material of each point

    def __post_init__(self):
        self.plastic, self.p = np.zeros((len(self.number), 3, 3)), np.zeros(len(self.number))

    def stress(self, strain):
        """Stress (points, 3, 3), and the states after the step."""
        stress, plastic, p = np.zeros_like(strain), self.plastic.copy(), self.p.copy()
        for i, material in enumerate(self.materials):
            at = self.number == i
            if isinstance(material, Plastic):
                stress[at], plastic[at], p[at] = update(material, strain[at], self.plastic[at], self.p[at])
            else:
                stress[at] = np.einsum("ijkl,pkl->pij", stiffness(material), strain[at])
        return stress, plastic, p

    def commit(self, strain):
        stress, self.plastic, self.p = self.stress(strain)
        return stress


def laminate(materials, axis, steps):
    """Strain (layers, 3, 3) and stress of equal layers normal to ``axis``, for each macroscopic strain of ``steps``."""
    layers = Points(materials, np.arange(len(materials)))
    normal = np.eye(3)[axis]
    jumps, results = np.zeros((len(materials) - 1, 3)), []
    for load in steps:

        def strain_of(jumps, load=load):
            a = np.vstack([jumps.reshape(-1, 3), -jumps.reshape(-1, 3).sum(axis=0)])
            return tensor(np.array(load)) + (a[:, :, None] * normal + normal[:, None] * a[:, None]) / 2

        def traction_jump(jumps, strain_of=strain_of):
            traction = layers.stress(strain_of(jumps))[0][:, axis]
            return np.concatenate([a - b for a, b in pairwise(traction)]) / 100

        jumps = root(traction_jump, jumps.ravel(), tol=1e-13).x
        strain = strain_of(jumps)
        results.append((strain, layers.commit(strain)))
    return results


class PlasticCell:
    """A cell assembled from its integration points, with tangents by finite differences; see ``problems.Direct``."""

    def __init__(self, phase, materials, scheme, spacing):
        elastic = [m.elastic if isinstance(m, Plastic) else m for m in materials]
        self.fe, self.count = Direct(phase, elastic, scheme, spacing), phase.size
        self.points = Points(materials, np.repeat(phase.T.ravel(), self.fe.points))
        self.weight = self.fe.volume / len(self.points.number)
        self.x = np.zeros(self.fe.strain_of.shape[1])

    def step(self, strain, stress):
        """Voxel means of strain and stress after a step, by Newton's method on all unknowns."""
        B, nodal = self.fe.strain_of, 3 * self.count
        free = np.array([True] * nodal + [e is None for e in strain])
        force = np.concatenate([np.zeros(nodal), self.fe.volume * MULTIPLICITY * [s or 0.0 for s in stress]])
        self.x[~free] = [e for e in strain if e is not None]
        for _ in range(40):
            eps = (B @ self.x).reshape(-1, 3, 3)
            sigma = self.points.stress(eps)[0]
            r = (force - self.weight * (B.T @ sigma.ravel()))[free]
            if np.abs(r).max() < 1e-11 * np.abs(self.weight * sigma).max():
                break
            tangent = np.zeros((len(eps), 9, 9))
            for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
                change = np.zeros((3, 3))
                change[i, j] += 0.5e-8
                change[j, i] += 0.5e-8
                difference = (self.points.stress(eps + change)[0] - sigma).reshape(-1, 9) / 1e-8
                tangent[:, :, 3 * i + j] = tangent[:, :, 3 * j + i] = difference
            rows = B.toarray()[:, free].reshape(len(eps), 9, -1)
            n = rows.shape[2]
            K = self.weight * rows.reshape(-1, n).T @ (tangent @ rows).reshape(-1, n)
            self.x[free] += np.linalg.lstsq(K, r, rcond=1e-10)[0]
        else:
            raise AssertionError("the reference does not converge")
        eps = (B @ self.x).reshape(-1, 3, 3)
        sigma = self.points.commit(eps)
        return (
            self.fe.voxel_mean(eps.ravel()),
            self.fe.voxel_mean(sigma.ravel()),
            self.fe.voxel_mean(self.points.plastic.ravel()),
        )
