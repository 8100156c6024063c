"""The networks that can be trained, by name."""

from __future__ import annotations

from collections.abc import Sequence

from lspipe.cell.physics import ELASTICITY, Physics
from lspipe.models.rln import PAPER, RLN
from lspipe.models.rln_cg import RLNCG

ARCHITECTURES = (*PAPER, "rln-cg")


def build(architecture: str, phases: int, mean: Sequence[float] = (1.0,), physics: Physics = ELASTICITY) -> RLN | RLNCG:
    """A network with fresh weights. Raises ValueError for an architecture that is not there."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture = {architecture!r}: must be one of {', '.join(ARCHITECTURES)}")
    return RLNCG(physics) if architecture == "rln-cg" else RLN(phases, mean, **PAPER[architecture])
