"""The maps of the cell problem on each of the engines, in plain numpy: what their tests compare."""

import math

import numpy as np
import pytest

from lspipe.cell.operator import Constants, Vector
from lspipe.cell.operator_numba import NumbaOperator
from lspipe.cell.operator_torch import TorchOperator
from lspipe.cell.problem import Problem

# Engine, and whether it transforms by dense products.
WAYS = {
    "numba": ("numba", True),
    "numba-fft": ("numba", False),
    "torch": ("torch", True),
    "torch-fft": ("torch", False),
}


def engine(name, problem, grid, dense=True):
    """The operators of a problem on an engine; PyTorch's runs on the CPU too."""
    constants = Constants(problem, grid, dense)
    return NumbaOperator(constants) if name == "numba" else TorchOperator(constants, "cpu")


class Maps:
    """The maps of one cell; fields are (components, nx, ny, nz), strain with engineering shear."""

    def __init__(self, way, materials, grid, spacing, scheme, dtype=np.float64):
        name, dense = WAYS[way]
        problem = Problem(tuple(materials), (0.0,) * 6, scheme=scheme, spacing=spacing)
        self.op, self.grid, self.dtype = engine(name, problem, grid, dense), grid, dtype
        assert self.op.constants.length == 1
        self.modulus = self.op.constants.modulus  # the engine's unit of stress

    def vector(self, nodal, mean=(0.0,) * 6):
        """In the engine's form, with equal values on opposite faces as a displacement has."""
        return self.cast(self.op.vector(np.asarray(nodal)[None], np.array([mean], float)))

    def force(self, nodal, mean=(0.0,) * 6):
        """The same with zeros on the faces beyond the last node, as a force has."""
        twice = self.vector(nodal, mean).nodal
        once = twice.reshape(-1)[: 3 * np.prod(np.add(self.grid, 1))].reshape(3, *np.add(self.grid, 1))
        once[:, -1], once[:, :, -1], once[:, :, :, -1] = 0, 0, 0
        return Vector(twice, self.vector(nodal, mean).mean)

    def cast(self, vector):
        return self.op.scale(1, vector, self.op.empty(1, self.dtype))

    def voxels(self, phase):
        return self.op.voxels(np.asarray(phase, np.uint16)[None])

    def parts(self, vector):
        """The nodal part, each node once, and the mean part."""
        nodal, strain, stress = (np.empty((1, c, *self.grid)) for c in (3, 6, 6))
        self.op.write_fields(self.voxels(np.zeros(self.grid)), vector, nodal, strain, stress)
        return nodal[0], self.op.numpy(vector.mean)[0]

    def stiffness(self, phase, u, strain=(0.0,) * 6):
        """Nodal forces, and the volume integral of the stress."""
        forces = self.op.apply_stiffness(self.voxels(phase), self.vector(u, strain), self.used(self.dtype))
        return [self.modulus * part for part in self.parts(forces)]

    def integrate(self, phase, stress):
        """Nodal forces, and the volume integral of a stress (phases, 6)."""
        return self.parts(self.op.integrate_stress(self.voxels(phase), stress, self.used(np.float64)))

    def used(self, dtype):
        """A vector for a result, which need not be 0 before."""
        out = self.op.empty(1, dtype)
        self.op.nodes(out)[:] = math.nan
        return out

    def green(self, r, mean=(0.0,) * 6, compliance=None):
        compliance = np.zeros((6, 6)) if compliance is None else compliance
        u, strain = self.parts(self.apply_green(self.force(r, mean), compliance))
        return u / self.modulus, strain

    def apply_green(self, r, compliance):
        """K⁰⁻¹ r. The engine returns the inner product of both, too."""
        z = self.op.empty(1, self.dtype)
        if isinstance(self.op, NumbaOperator):
            self.op._buffers(np.dtype(self.dtype))[1].fill(math.nan)
        work = self.op.apply_green(r, compliance, z)
        assert self.op.numpy(work) == pytest.approx(self.op.numpy(self.op.inner(z, r)), rel=1e-5)
        return z

    def fields(self, phase, u, strain=(0.0,) * 6):
        """Voxel means of strain and stress."""
        fields = [np.empty((1, c, *self.grid)) for c in (3, 6, 6)]
        self.op.write_fields(self.voxels(phase), self.vector(u, strain), *fields)
        return fields[1][0], self.modulus * fields[2][0]
