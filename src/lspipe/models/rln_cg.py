"""RLN-CG: conjugate gradients in which a learned local solver and the Green operator take turns.

The preconditioner K⁰⁻¹ takes the medium for homogeneous. The contrast adds corrections of short range, which a network
can learn. From the moduli the network derives fields h, and with them a symmetric positive semidefinite operator on the
nodal forces,

    S = LᵀL,  L = diag(h) W D^(−1/2),

where W are convolutions 3³ and D is the modulus around a node. A pass takes two steps: one along K⁰⁻¹ r, and one along
S r of the residual r that is left. One more step along S r comes before the first pass. Each step minimizes the energy
along its direction, which is made K-orthogonal to the last MEMORY directions. So the energy falls for any weights.
Where h = 0, the steps along S r are left out, and plain conjugate gradients remain.

S does not depend on the load and serves all loads of a microstructure. A pass applies K⁰⁻¹ once, K twice, and S once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from lspipe.cell.autograd import Cells, Pair
from lspipe.cell.batch import build_system, find_strain
from lspipe.cell.conjugate_gradients import System
from lspipe.cell.numbers import check_integer
from lspipe.cell.operator import Array, Constants
from lspipe.cell.physics import ELASTICITY, Physics
from lspipe.cell.problem import Problem
from lspipe.cell.solver import Start, make_batches
from lspipe.models.baseline import ConjugateGradients
from lspipe.models.domain import load_scale
from lspipe.models.errors import shear
from lspipe.models.pairs import add, dot, size, unit, where
from lspipe.models.periodic import convolve, wrap
from lspipe.models.processes import average

PASSES = 5  # in training, and of a prediction by default
MEMORY = 5  # Directions. More of them save hardly a pass; fewer cost a third more passes at tight tolerances.
NEGLIGIBLE = 1e-6  # If orthogonalization leaves at most this part of an energy, the rest is rounding.
EXHAUSTED = 1e-6  # A residual below this part of the first one is rounding in single precision.
SOFTEST = 1e-3  # Modulus of a void relative to the reference medium. The network needs its logarithm.


class RLNCG(nn.Module):
    """The network that makes S, and the conjugate gradients around it.

    Args:
        physics: The physics of the materials.
        features: The number of features of a voxel.
        width: The number of convolutions W for each dilation.
        reach: The dilations of the convolutions W.
    """

    def __init__(
        self, physics: Physics = ELASTICITY, features: int = 8, width: int = 4, reach: tuple[int, ...] = (1, 2)
    ) -> None:
        super().__init__()
        self.physics, self.reach, self.passes, self.channels = physics, reach, PASSES, len(physics.components)
        sizes = ((2 * len(physics.isotropic), 1), (features, 1), (features, 2), (features, 4))
        blocks = [(Periodic(before, features, dilation), nn.PReLU(features)) for before, dilation in sizes]
        self.features = nn.Sequential(*(layer for block in blocks for layer in block))
        # The network begins near S = D⁻¹.
        self.h = nn.Conv3d(features, width * len(reach), 1)
        h = torch.full((width * len(reach),), 0.2)
        h[: physics.d] = 1.0
        self.h.load_state_dict({"weight": torch.zeros_like(self.h.weight), "bias": h})
        W = 0.1 * torch.randn(len(reach), width, physics.d, 3, 3, 3)
        W[0, : physics.d] = 0.0
        W[0, range(physics.d), range(physics.d), 1, 1, 1] = 1.0
        self.W = nn.Parameter(W)

    def local_solver(self, cells: Cells, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Return S of these cells, which maps forces (N, d, nx, ny, nz) float32 to displacements.

        Raises:
            ValueError: The materials belong to another physics than the network.
        """
        constants = cells.op.constants
        if constants.physics.name != self.physics.name:
            raise ValueError(
                f"materials: belong to {constants.physics.name}; this network was trained for {self.physics.name}"
            )
        relative = self.physics.moduli(constants.C) / self.physics.moduli(constants.C0[None])
        relative = np.maximum(relative, SOFTEST)
        table = torch.tensor(np.concatenate([relative, np.log(relative)]).T, dtype=torch.float32, device=device)
        medium = table[torch.from_numpy(cells.phase.astype(np.int64)).to(device)].movedim(-1, 1)
        h = self.h(to_nodes(self.features(medium))).split(self.W.shape[1], dim=1)
        scale = to_nodes(medium[:, : len(relative)]).mean(dim=1, keepdim=True) ** -0.5  # D^(−1/2)

        def S(r: Tensor) -> Tensor:
            r = scale * (r - r.mean(dim=(2, 3, 4), keepdim=True))
            parts = [
                periodic(part.square() * periodic(r, W, dilation), W.transpose(0, 1).flip(2, 3, 4), dilation)
                for W, part, dilation in zip(self.W, h, self.reach, strict=True)
            ]
            p = scale * torch.stack(parts).sum(dim=0)
            return p - p.mean(dim=(2, 3, 4), keepdim=True)  # a translation has no energy

        return S

    def forward(
        self, cells: Cells, e: Tensor, load: Pair, passes: int, until: ArrayLike = 0.0
    ) -> Iterator[tuple[Pair, Tensor]]:
        """Solve the cells by passes that begin at zero displacement.

        Args:
            cells: The cells and their operators.
            e: The macroscopic strain at the start, (N, strains) float64, with engineering shear.
            load: The nodal forces, (N, d, nx, ny, nz) float32, and the volume integral of the stress, (N, strains)
                float64, of the load.
            passes: The largest number of passes.
            until: The value of r·K⁰⁻¹r at which a cell is done.

        Yields:
            After each pass, the displacement with the macroscopic strain, and whether the pass moved each cell, (N,).
        """
        S, no_strain = self.local_solver(cells, e.device), torch.zeros_like(e)
        u = e.new_zeros((len(e), self.physics.d, *cells.phase.shape[1:]), dtype=torch.float32)
        f, s = cells.apply_stiffness(u, e)
        free = torch.as_tensor(cells.compliance.any(axis=1), device=e.device)  # the other components are prescribed
        x, r = (u, e), (load[0] - f, free * (load[1] - s))
        # Nodal forces are sums of larger ones that cancel. A residual far below these is rounding.
        spacing = cells.op.constants.volume ** (1 / 3)
        forces = torch.maximum(s.abs(), load[1].abs()).amax(dim=1) / (cells.phase[0].size * spacing)
        least = EXHAUSTED * torch.maximum(size(r), forces)
        recent: list[tuple[Pair, Pair, Tensor]] = []
        active = torch.ones_like(least, dtype=torch.bool)

        def learned(f: Tensor, _: Tensor) -> Pair:
            return S(f), no_strain

        for k in range(passes):
            for propose in (cells.apply_green, learned) if k else (learned, cells.apply_green, learned):
                z = propose(*unit(r))
                if propose == cells.apply_green:
                    rho = size(r) * dot(z, r)
                p = unit(z)
                Kp = cells.apply_stiffness(*p)
                energy = dot(p, Kp)
                for q, Kq, qKq in recent:
                    b = -dot(p, Kq) / qKq
                    p, Kp = add(p, b, q), add(Kp, b, Kq)
                pKp = dot(p, Kp)
                used = active & torch.isfinite(pKp) & (pKp > NEGLIGIBLE * energy) & (size(r) > least)
                p, Kp, pKp = where(used, p), where(used, Kp), torch.where(used, pKp, 1)
                a = dot(p, r) / pKp
                x, r = add(x, a, p), add(r, -a, (Kp[0], free * Kp[1]))
                recent = [*recent, (p, Kp, pKp)][-MEMORY:]
            yield x, active
            active = active & (rho > torch.as_tensor(until).to(rho)) & (size(r) > least)
            if not active.any():
                return

    def learn(self, phase: Tensor, y: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """Return the loss in % and the strain after the last pass, in the form of ``y``.

        The loss is the geometric mean, over passes and microstructures, of √(⟨Δε:C:Δε⟩/⟨ε:C:ε⟩), where Δε is the error
        of ε. Its gradient is that of its logarithm, so that each pass and each microstructure counts the same.

        Args:
            phase: The phase of each voxel, (N, nx, ny, nz).
            y: The true strain over ``load_scale``, 0 in voids, (N, strains, nx, ny, nz) float32.
            problem: The problem that was solved.
        """
        cells, e, load, unit = prepare(phase, problem)
        with torch.autocast(y.device.type, enabled=False):  # bfloat16 would lose small differences
            states = self(cells, e, load, self.passes)
            fields = [unit / load_scale(problem) * strain(cells.op.constants, *x) for x, _ in states]
            energy = problem.compute_energy(phase, y)
            energy = torch.where(energy > 0, energy, 1)
            errors = torch.stack([problem.compute_energy(phase, field - y) / energy for field in fields])
        logarithm = average(errors.clamp(min=EXHAUSTED**2).log().mean(), len(y)) / 2
        loss = 100 * logarithm.exp().detach() + logarithm - logarithm.detach()
        return loss, problem.fill_voids(phase, fields[-1])

    def start(self, counts: Sequence[int]) -> Start:
        """Return a function that computes the fields after each number of passes, for ``solve`` to start from.

        Passes run in single precision. They reach a residual of about 10⁻⁶, or a larger one where the medium is nearly
        incompressible or the voxels are slender.

        Args:
            counts: The numbers of passes, at least 1, in ascending order.
        """
        counts = [check_integer("passes", passes, 1) for passes in counts]

        def descend(
            system: System, phase: NDArray[np.integer], mean: Array, target: Array
        ) -> Iterator[tuple[Array, Array, NDArray[np.int64]]]:
            load, done = load_of(system), np.zeros(len(phase), np.int64)
            cells = Cells(system.op, phase, system.compliance)
            states = self(cells, torch.as_tensor(mean).to(load[1]), load, counts[-1], target)
            for k in range(1, counts[-1] + 1):
                with torch.no_grad():
                    if following := next(states, None):  # None when all cells are done
                        (u, e), moved = following
                        done = done + moved.cpu().numpy()
                if k in counts:
                    yield u.cpu().numpy(), e.cpu().numpy(), done

        return descend


@dataclass(frozen=True)
class RLNCGModel(ConjugateGradients):
    """Predicts displacement, strain and stress for any materials under any load, with residual and bound.

    Each pass counts as one iteration and applies K⁰⁻¹ once. ``green`` counts two more applications, for the size of the
    load and for the residual. With ``tol``, plain conjugate gradients follow where passes do not reach it.
    """

    network: RLNCG
    passes: ClassVar[int] = PASSES
    counts: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5, 6, 8, 10)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    def _start(self, counts: Sequence[int]) -> Start:
        return self.network.start(counts)

    def _until(self, most: int, tol: float | None) -> dict[str, Any]:
        end: dict[str, Any] = {"tol": 0, "max_iterations": 0} if tol is None else {"tol": tol}
        return {"start": self._start((most,)), **end}


def prepare(phase: Tensor, problem: Problem) -> tuple[Cells, Tensor, Pair, float]:
    """Return the arguments ``cells``, ``e`` and ``load`` of ``forward``, and the unit of the strain."""
    batches = make_batches(phase.cpu().numpy(), problem, device=str(phase.device))
    systems, first = [build_system(batch) for batch in batches], batches[0]
    pairs = zip(batches, systems, strict=True)
    e = [find_strain(batch, system, None, first.op.empty(len(batch.phase), np.float64)) for batch, system in pairs]
    cells = Cells(first.op, np.concatenate([batch.phase for batch in batches]), systems[0].compliance)
    nodal, mean = map(torch.cat, zip(*map(load_of, systems), strict=True))
    return cells, torch.from_numpy(np.concatenate(e)).to(phase.device), (nodal, mean), first.units[1].flat[0]


def load_of(system: System) -> Pair:
    """Return the load of a system as ``RLNCG.forward`` takes it."""
    nodal = torch.as_tensor(system.op.nodes(system.load))
    return nodal[..., :-1, :-1, :-1].float(), torch.as_tensor(system.load.mean)


def strain(constants: Constants, u: Tensor, e: Tensor) -> Tensor:
    """Return the voxel means (N, strains, nx, ny, nz) of the strain, with tensor shear."""
    B = torch.tensor(constants.B.reshape(-1, 2, 2, 2, constants.d), dtype=u.dtype, device=u.device).movedim(-1, 1)
    engineering = convolve(wrap(u, [(0, 1)] * 3), B) + e.to(u.dtype)[:, :, None, None, None]
    return shear(constants.physics, engineering) * engineering


class Periodic(nn.Conv3d):
    """A dilated convolution 3³ of a periodic field."""

    def __init__(self, channels_in: int, channels_out: int, dilation: int) -> None:
        super().__init__(channels_in, channels_out, 3, dilation=dilation)
        nn.init.kaiming_normal_(self.weight, a=0.25)

    def forward(self, x: Tensor) -> Tensor:
        bias: Any = self.bias  # Any, for torch declares it optional
        return periodic(x, self.weight, self.dilation[0]) + bias[:, None, None, None]


def periodic(x: Tensor, W: Tensor, dilation: int) -> Tensor:
    """Convolve a periodic field with weights W (C_out, C_in, 3, 3, 3)."""
    return convolve(wrap(x, [(dilation, dilation)] * 3), W, dilation=dilation)


def to_nodes(voxels: Tensor) -> Tensor:
    """Return the mean over the voxels that meet at each node."""
    return avg_pool3d(wrap(voxels, [(1, 0)] * 3), 2, stride=1)
