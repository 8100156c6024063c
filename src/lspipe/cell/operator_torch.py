"""The engine for CUDA devices: the operators of many cells at once, in PyTorch's own operations.

A nodal part is a tensor (N, d, nx+1, ny+1, nz+1).
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lspipe.cell import transform
from lspipe.cell.element import CORNERS
from lspipe.cell.operator import Array, Constants, Operator, Vector

DTYPE: dict[Any, torch.dtype] = {np.float32: torch.float32, np.float64: torch.float64}
DENSE = 40  # length of the largest axis that is transformed by dense products, which are not folded here
VOXELS = 2**22  # voxels in a batch; they fill a large GPU and need about 4 GB of its memory


class TorchOperator(Operator):
    """The engine for CUDA devices."""

    threads = 1
    xp: Any = torch

    def __init__(self, constants: Constants, device: str) -> None:
        self.constants, self.device = constants, torch.device(device)
        self.batch = max(1, VOXELS // int(np.prod(constants.grid)))
        names = ("coefficients", "matrices", "stiffness_matrices", "B", "uniform")
        x, y, z = constants.places
        symbol = constants.symbol[:, :, x, y, z]
        self.precisions = {
            dtype: SimpleNamespace(
                **{name: self.array(getattr(constants, name), dtype) for name in names},
                symbol=self.array(symbol, dtype),
                bases=[self.array(basis, dtype) for basis in constants.bases] if constants.bases else None,
            )
            for dtype in DTYPE.values()
        }

    def array(self, a: Any, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.as_tensor(a, dtype=dtype, device=self.device)

    def numpy(self, a: Tensor) -> Array:
        return a.cpu().numpy()

    def voxels(self, phase: NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(phase.astype(np.int32)).to(self.device)

    def empty(self, count: int, dtype: Any) -> Vector:
        c = self.constants
        nodal = torch.zeros((count, c.d, *(n + 1 for n in c.grid)), dtype=DTYPE[dtype], device=self.device)
        return Vector(nodal, self.array(np.zeros((count, len(c.C0)))))

    def nodes(self, x: Vector) -> Tensor:
        return x.nodal

    def scale(self, a: Any, x: Vector, out: Vector) -> Vector:
        out.nodal.copy_(_per_sample(a, x.nodal) * x.nodal)
        out.mean.copy_(_per_sample(a, x.mean) * x.mean)
        return out

    def axpby(self, a: Any, x: Vector, b: Any, y: Vector) -> Vector:
        for source, target in zip(x, y, strict=True):
            target.mul_(_per_sample(b, target)).add_(_per_sample(a, target) * source)
        return y

    def inner(self, x: Vector, y: Vector) -> Tensor:
        nodal = (x.nodal * y.nodal).sum(dim=(1, 2, 3, 4), dtype=torch.float64)
        return nodal + (x.mean * y.mean).sum(dim=1)

    def apply_stiffness(self, voxels: Tensor, x: Vector, out: Vector) -> Vector:
        c = self.precisions[x.nodal.dtype]
        return self._assemble(_multiply_weighted(c.coefficients, voxels, c.matrices, self._corners(x)), out)

    def integrate_stress(self, voxels: Tensor, stress: Array, out: Vector) -> Vector:
        fields = self.array(stress)[voxels].flatten(1, 3).mT
        return self._assemble(self.constants.volume * self.precisions[torch.float64].B.mT @ fields, out)

    def _assemble(self, force: Tensor, out: Vector) -> Vector:
        """Add the forces (N, 8·d, voxels) on the corners of each voxel; see ``apply_stiffness``."""
        out.mean.copy_(force.sum(dim=2).to(torch.float64) @ self.precisions[torch.float64].uniform)
        nodes = out.nodal.zero_()
        forces = force.unflatten(2, self.constants.grid).unflatten(1, (8, -1))
        for a, corner in enumerate(self._shifted(nodes)):
            corner += forces[:, a]
        for axis in (2, 3, 4):  # Opposite faces are the same nodes.
            face, opposite = nodes.select(axis, 0), nodes.select(axis, -1)
            face += opposite
            opposite.zero_()
        return out

    def apply_green(self, r: Vector, compliance: Array, out: Vector) -> Tensor:
        c, z = self.precisions[out.nodal.dtype], _periodic(r.nodal).to(out.nodal.dtype)
        if c.bases:
            z = transform.synthesize(c.bases, _multiply(c.symbol, transform.analyse(c.bases, z)))
        else:
            z = torch.fft.rfftn(z, dim=(2, 3, 4))
            z = torch.fft.irfftn(_multiply(c.symbol, z), s=self.constants.grid, dim=(2, 3, 4))
        transform.extend(z, out.nodal)
        out.mean.copy_(r.mean @ self.array(compliance))
        return self.inner(out, r)

    def write_fields(self, voxels: Tensor, x: Vector, displacement: Array, strain: Array, stress: Array) -> None:
        c = self.precisions[x.nodal.dtype]
        e = c.B @ self._corners(x)
        s = _multiply_weighted(c.coefficients, voxels, c.stiffness_matrices, e)
        displacement[:] = self.numpy(_periodic(x.nodal))
        strain[:] = self.numpy(e).reshape(strain.shape)
        stress[:] = self.numpy(s).reshape(stress.shape)

    def _corners(self, x: Vector) -> Tensor:
        """Return the displacements (N, 8·d, voxels) of the corners of each voxel."""
        corners = torch.stack(list(self._shifted(x.nodal)), dim=1).flatten(3).flatten(1, 2)
        return corners + (x.mean @ self.precisions[torch.float64].uniform.T).to(corners.dtype)[:, :, None]

    def _shifted(self, nodal: Tensor) -> Iterator[Tensor]:
        """Yield for each corner of a voxel the view (N, d, nx, ny, nz) of the nodes there."""
        nx, ny, nz = self.constants.grid
        for a, b, c in CORNERS:
            yield nodal[..., a : a + nx, b : b + ny, c : c + nz]


def _periodic(nodal: Tensor) -> Tensor:
    """Return the view (N, d, nx, ny, nz) that has each node once."""
    return nodal[..., :-1, :-1, :-1]


def _per_sample(a: Any, like: Tensor) -> Any:
    """Return factors (N,), or a number, in a shape that multiplies a tensor (N, …)."""
    return a.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1)) if isinstance(a, Tensor) else a


def _multiply_weighted(coefficients: Tensor, voxels: Tensor, matrices: Tensor, x: Tensor) -> Tensor:
    """Return Σ_b coefficients[phase, b] matrices[b] x for each voxel; x is (N, rows, voxels)."""
    y = torch.zeros_like(x)
    for coefficient, matrix in zip(coefficients.T, matrices, strict=True):
        y.addcmul_(coefficient[voxels].flatten(1)[:, None], matrix @ x)
    return y


def _multiply(symbol: Tensor, z: Tensor) -> Tensor:
    """Return Σ_b symbol[a, b] z[b] for amplitudes z (N, d, …)."""
    return torch.stack([(row * z).sum(dim=1) for row in symbol], dim=1)
