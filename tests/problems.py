"""Cell problems with known answers, and a finite-element solver that shares no code with the package.

Fields are in Voigt order xx, yy, zz, yz, xz, xy with tensor shear, materials anything that has ``young``
and ``poisson``, or a Voigt ``stiffness``.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from types import SimpleNamespace

import numpy as np
from scipy import sparse

from lspipe import Anisotropic, Isotropic

PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
UNIT_LOADS = np.eye(6)
MULTIPLICITY = np.array([1, 1, 1, 2, 2, 2])  # σ:ε = Σ MULTIPLICITY σ ε
SCHEMES = ("bbar", "full", "reduced")
GRIDS = ((4, 4, 4), (3, 3, 3), (5, 4, 3), (3, 6, 1), (2, 1, 4), (1, 1, 1))
SPACING = (1.0, 0.5, 1.5)
MATERIALS = (Isotropic(1.0, 0.1), Isotropic(8.0, 0.45), Isotropic(0.3, -0.2))


def tensor(field):
    """(6, ...) to the symmetric (3, 3, ...)."""
    return np.array([[field[PAIRS.index((min(i, j), max(i, j)))] for j in range(3)] for i in range(3)])


def voigt(field):
    """The symmetric (3, 3, ...) to (6, ...)."""
    return np.array([field[i, j] for i, j in PAIRS])


def stiffness(material):
    """C_ijkl = λ δ_ij δ_kl + μ (δ_ik δ_jl + δ_il δ_jk), or from the Voigt matrix."""
    if not isinstance(material, Isotropic):
        index = np.array([[PAIRS.index((min(i, j), max(i, j))) for j in range(3)] for i in range(3)])
        return material.stiffness[index[:, :, None, None], index]
    young, poisson = material.young, material.poisson
    lame = young * poisson / ((1 + poisson) * (1 - 2 * poisson))
    mu = young / (2 * (1 + poisson))
    i = np.eye(3)
    both = np.einsum("ik,jl->ijkl", i, i) + np.einsum("il,jk->ijkl", i, i)
    return lame * np.multiply.outer(i, i) + mu * both


def eigenstress(material, temperature):
    """C:αΔT (3, 3)."""
    return np.einsum("ijkl,kl->ij", stiffness(material), tensor(material.expansion_strain * temperature))


def stress_of(phase, materials, strain, temperature=0.0):
    """C(x):(ε − αΔT) in every voxel."""
    C = np.array([stiffness(m) for m in materials])[phase]
    free = np.array([m.expansion_strain for m in materials])[phase] * temperature
    return voigt(np.einsum("xyzijkl,klxyz->ijxyz", C, tensor(strain - np.moveaxis(free, -1, 0))))


@dataclass(frozen=True)
class Problem:
    """A cell, its macroscopic strain (6,) and its exact strain (6, nx, ny, nz)."""

    phase: np.ndarray
    materials: tuple
    load: np.ndarray
    strain: np.ndarray
    temperature: float = 0.0

    @property
    def stress(self):
        return stress_of(self.phase, self.materials, self.strain, self.temperature)


def from_moduli(bulk, shear):
    """The material of these bulk and shear moduli."""
    return Isotropic(9 * bulk * shear / (3 * bulk + shear), (3 * bulk - 2 * shear) / (6 * bulk + 2 * shear))


def homogeneous(material, grid, load):
    """One material: the strain is the load everywhere."""
    load = np.asarray(load, dtype=float)
    return Problem(np.zeros(grid, int), (material,), load, np.tile(load[:, None, None, None], grid))


def laminate(axis, layers, materials, load, width=2, temperature=0.0):
    """Layers normal to ``axis``, one voxel each, of the phases ``layers``.

    The strain E + sym(a ⊗ n) is constant in a layer. Its traction t on n is that of every layer, which
    gives a = A⁻¹(t − (C:(E − αΔT))·n) with A = n·C·n, and ⟨a⟩ = 0 gives t.
    """
    load = np.asarray(load, dtype=float)
    C = np.array([stiffness(m) for m in materials])[list(layers)]
    inverse = np.linalg.inv(C[:, :, axis, :, axis])
    mean_traction = np.einsum("pikl,kl->pi", C[:, :, axis], tensor(load))
    mean_traction -= np.array([eigenstress(m, temperature)[axis] for m in materials])[list(layers)]
    t = np.linalg.solve(inverse.mean(axis=0), np.einsum("pij,pj->i", inverse, mean_traction) / len(layers))
    a = np.einsum("pij,pj->pi", inverse, t - mean_traction)
    jump = np.multiply.outer(np.eye(3)[axis], a.T)
    strain = load[:, None] + voigt(jump + jump.swapaxes(0, 1)) / 2

    grid = [width] * 3
    grid[axis] = len(layers)
    along = [1, 1, 1]
    along[axis] = len(layers)
    phase = np.broadcast_to(np.reshape(layers, along), grid)
    return Problem(phase, tuple(materials), load, np.broadcast_to(strain.reshape(6, *along), (6, *grid)), temperature)


def anisotropic(seed):
    """A material without any symmetry."""
    A = np.random.default_rng(seed).normal(size=(6, 6))
    return Anisotropic(A @ A.T + np.eye(6))


def random_cell(grid, phases=2, seed=0):
    """Independent voxels; every phase occurs."""
    count = int(np.prod(grid))
    return np.random.default_rng(seed).permutation(np.arange(count) % phases).reshape(grid)


def sphere(n, diameter):
    """Phase 1 in a sphere of that many voxels across, at the middle of n³ voxels of phase 0."""
    x = np.arange(n) - (n - 1) / 2
    return (np.add.outer(np.add.outer(x**2, x**2), x**2) < diameter**2 / 4).astype(int)


def eshelby(matrix, inclusion):
    """Volumetric and deviatoric strain in a lone sphere, relative to those far away (Eshelby 1957)."""
    young, nu = inclusion.young / matrix.young, matrix.poisson
    bulk = young * (1 - 2 * nu) / (1 - 2 * inclusion.poisson)
    shear = young * (1 + nu) / (1 + inclusion.poisson)
    a, b = (1 + nu) / (3 * (1 - nu)), 2 * (4 - 5 * nu) / (15 * (1 - nu))
    return 1 / (1 + a * (bulk - 1)), 1 / (1 + b * (shear - 1))


@dataclass(frozen=True)
class Answer:
    """Voxel means (6, nx, ny, nz), and the unknowns from which they come."""

    x: np.ndarray
    strain: np.ndarray
    stress: np.ndarray


class Direct:
    """The cell as one quadratic form: x·A·x = ∫ ε:C:ε for x = (nodal displacements, macroscopic strain).

    Node (i, j, k) has the number i + nx (j + ny k), hence the vector of a field is field.T.ravel(). Strain
    is kept as nine components at each integration point.
    """

    def __init__(self, phase, materials, scheme="bbar", spacing=(1.0, 1.0, 1.0), temperature=0.0):
        self.grid = nx, ny, nz = phase.shape
        points = strain_displacement(scheme, spacing)
        self.points, cells = len(points), phase.size
        dofs = [
            3 * ((i + a) % nx + nx * ((j + b) % ny + ny * ((k + c) % nz))) + m
            for k, j, i in product(range(nz), range(ny), range(nx))
            for a, b, c in product((0, 1), repeat=3)
            for m in range(3)
        ]
        gather = sparse.csr_array((np.ones(24 * cells), (np.arange(24 * cells), dofs)), (24 * cells, 3 * cells))
        periodic = sparse.kron(sparse.eye_array(cells), points.reshape(-1, 24)) @ gather
        uniform = np.tile(tensor(np.eye(6)).reshape(9, 6), (cells * self.points, 1))
        self.strain_of = sparse.hstack([periodic, sparse.csr_array(uniform)]).tocsr()

        self.volume = cells * np.prod(spacing)
        C = [np.kron(np.eye(self.points), stiffness(m).reshape(9, 9)) for m in materials]
        self.C = sparse.block_diag([C[p] for p in phase.T.ravel()]).tocsr()
        weight = np.prod(spacing) / self.points
        self.A = (weight * self.strain_of.T @ self.C @ self.strain_of).toarray()
        free = np.array([eigenstress(m, temperature).ravel() for m in materials])[phase.T.ravel()]
        self.free = np.repeat(free, self.points, axis=0).ravel()
        self.force = weight * self.strain_of.T @ self.free

    def unknowns(self, displacement, strain):
        """x of a displacement (3, nx, ny, nz) and a voxel strain (6, nx, ny, nz)."""
        return np.concatenate([displacement.T.ravel(), strain.mean(axis=(1, 2, 3))])

    def system(self, strain, stress=None):
        """Right-hand side, x with all unknowns 0, and which entries of x are unknown."""
        nodal = 3 * int(np.prod(self.grid))
        free = np.array([True] * nodal + [e is None for e in strain])
        given = np.array([0.0] * nodal + [e or 0.0 for e in strain])
        macroscopic = np.array([s or 0.0 for s in stress or [0] * 6])
        force = np.concatenate([np.zeros(nodal), self.volume * MULTIPLICITY * macroscopic])
        return force + self.force - self.A @ given, given, free

    def solve(self, strain, stress=None):
        """The least-norm solution: free of rigid translation and of hourglass modes."""
        b, x, free = self.system(strain, stress)
        x[free] = self.inverse(free) @ b[free]
        return self.answer(x)

    def inverse(self, free):
        """Pseudo-inverse of A restricted to the unknowns ``free``."""
        values, vectors = np.linalg.eigh(self.A[np.ix_(free, free)])
        kept = values > 1e-12 * self.A.diagonal().max()
        return vectors[:, kept] / values[kept] @ vectors[:, kept].T

    def answer(self, x):
        strain = self.strain_of @ x
        return Answer(x, self.voxel_mean(strain), self.voxel_mean(self.C @ strain - self.free))

    def voxel_mean(self, field):
        nx, ny, nz = self.grid
        mean = field.reshape(nz, ny, nx, self.points, 3, 3).mean(axis=3)
        return voigt(mean.transpose(3, 4, 2, 1, 0))

    def energy(self, x):
        return x @ self.A @ x


@dataclass
class Assembled:
    """A cell that conducts: x·A·x = ∫ g·k·g for x = (nodal temperatures, macroscopic gradient).

    The gradient g is kept at each integration point.
    """

    phase: np.ndarray
    conductors: list
    scheme: str
    spacing: tuple = SPACING

    def __post_init__(self):
        grid = self.phase.shape
        signs = np.array(list(product((-1, 1), repeat=3)))
        points = [np.zeros(3)] if self.scheme == "reduced" else signs / np.sqrt(3)
        nodes, voxels, count = np.arange(self.phase.size).reshape(grid), list(np.ndindex(grid)), len(points)
        self.G = np.zeros((len(voxels), count, 3, self.phase.size + 3))
        for v, corner in enumerate(voxels):
            for q, xi in enumerate(points):
                for s in signs:
                    node = nodes[tuple((np.array(corner) + (s + 1) // 2) % grid)]
                    line = (1 + s * xi) / 2
                    for j in range(3):
                        self.G[v, q, j, node] += s[j] / self.spacing[j] * np.delete(line, j).prod()
        self.G[:, :, range(3), self.phase.size + np.arange(3)] = 1.0
        k = [
            np.multiply(m.conductivity, np.eye(3)) if np.isscalar(m.conductivity) else m.conductivity
            for m in self.conductors
        ]
        self.k = np.array(k)[self.phase.ravel()]
        self.A = np.prod(self.spacing) / count * np.einsum("vqia,vij,vqjb->ab", self.G, self.k, self.G)

    def solve(self, gradient, flux=None):
        """Gradient and k times it, the least-norm temperatures, and the energy of a state."""
        n, volume = self.phase.size, np.prod(self.spacing) * self.phase.size
        free = np.array([*[True] * n, *[g is None for g in gradient]])
        x = np.array([*[0.0] * n, *[g or 0.0 for g in gradient]])
        force = volume * np.array([*[0.0] * n, *[f or 0.0 for f in flux or [None] * 3]]) - self.A @ x
        x[free] = np.linalg.pinv(self.A[np.ix_(free, free)], rcond=1e-12, hermitian=True) @ force[free]
        g = (self.G @ x).mean(axis=1)
        fields = [field.T.reshape(3, *self.phase.shape) for field in (g, np.einsum("vij,vj->vi", self.k, g))]
        return SimpleNamespace(x=x, gradient=fields[0], flux=fields[1], temperature=x[:n].reshape(self.phase.shape))


def strain_displacement(scheme, spacing):
    """Strain at the integration points of a brick centred at 0: (points, 3, 3, 24), corners x slowest."""
    signs = np.array(list(product((-1, 1), repeat=3)))
    gauss = [np.zeros(3)] if scheme == "reduced" else signs / np.sqrt(3)
    B = np.zeros((len(gauss), 3, 3, 8, 3))
    for g, xi in enumerate(gauss):
        for a, s in enumerate(signs):
            line = (1 + s * xi) / 2
            for j in range(3):
                slope = s[j] / spacing[j] * line[(j + 1) % 3] * line[(j + 2) % 3]
                for c in range(3):
                    B[g, c, j, a, c] += slope / 2
                    B[g, j, c, a, c] += slope / 2
    if scheme == "bbar":
        volumetric = np.einsum("giiac->gac", B)
        for i in range(3):
            B[:, i, i] += (volumetric.mean(axis=0) - volumetric) / 3
    return B.reshape(len(gauss), 3, 3, 24)


@lru_cache
def direct(grid, scheme, materials=MATERIALS, spacing=SPACING, temperature=0.0):
    """A random cell and its system."""
    phase = random_cell(grid, len(materials))
    return phase, Direct(phase, materials, scheme, spacing, temperature)


def reference(materials):
    """Bulk and shear modulus midway between their extremes; least and largest ratio of a phase's to them."""
    C = np.array([stiffness(m) for m in materials])
    shear = C[:, 0, 1, 0, 1]
    moduli = np.stack([C[:, 0, 0, 1, 1] + 2 / 3 * shear, shear])
    middle = (moduli.min(axis=1) + moduli.max(axis=1)) / 2
    ratio = moduli / middle[:, None]
    return from_moduli(*middle), ratio.min(), ratio.max()
