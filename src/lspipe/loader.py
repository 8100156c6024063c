"""Stores → tensors: the phases and the strain that a network learns."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lspipe.cell.material import Isotropic
from lspipe.models.localization import Domain
from lspipe.store import open_pair


class Samples(NamedTuple):
    """``phase``: (N, nx, ny, nz) uint8. ``y``: (N, nx, ny, nz) float32, ε_xx/ε̄_xx."""

    phase: Tensor
    y: Tensor


def load(microstructures: Path, fields: Path) -> tuple[Samples, Domain]:
    """The whole set in memory, and the domain that it belongs to. ValueError for unwritten samples."""
    cells, data = open_pair(microstructures, fields)
    xx = data.strain.sel(component="xx")
    y = np.empty(xx.shape, dtype=np.float32)
    step = data.attrs["samples_per_shard"]
    for first in range(0, len(y), step):
        y[first : first + step] = xx[first : first + step]
    if (unwritten := np.flatnonzero(np.isnan(y).any(axis=(1, 2, 3)))).size:
        raise ValueError(f"{fields}: samples {unwritten.tolist()} are not written")
    strain = tuple(data.attrs["macroscopic_strain"])
    y /= strain[0]
    materials = tuple(Isotropic(**m) for m in data.attrs["materials"])
    domain = Domain(materials, strain, data.attrs["scheme"])
    return Samples(torch.from_numpy(cells.phase.values), torch.from_numpy(y)), domain
