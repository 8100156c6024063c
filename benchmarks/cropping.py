"""Measure what it costs to solve a window of a larger image as if it were periodic.

    python benchmarks/cropping.py

Periodic cells of 48³ voxels are solved, cut into windows of 24³ voxels, and each window is solved again: as it is, and
mirrored along each axis. The table shows the mean of |Δε_xx| over the prescribed strain, in voxels near the faces of
the window and away from them, and the mean and scatter of the relative error of C₁₁₁₁.
"""

import numpy as np

from lspipe import Isotropic, effective_stiffness, solve
from lspipe.microstructure.gaussian import blur

N, WINDOW, GRAIN, STIFF, CELLS = 48, 24, 16, 0.3, 2
LOAD = (1e-3, 0, 0, 0, 0, 0)


def mirror(cells):
    """Return periodic cells of twice the size along each axis."""
    for axis in (1, 2, 3):
        cells = np.concatenate([cells, np.flip(cells, axis)], axis)
    return cells


def main():
    rng = np.random.default_rng(0)
    smooth = np.stack([blur(rng.random((N,) * 3), np.array([GRAIN] * 3)) for _ in range(CELLS)])
    phase = (smooth > np.quantile(smooth, 1 - STIFF, axis=(1, 2, 3), keepdims=True)).astype(np.uint8)
    corners = [(slice(None), *np.s_[x : x + WINDOW, y : y + WINDOW, z : z + WINDOW])
               for x in (0, WINDOW) for y in (0, WINDOW) for z in (0, WINDOW)]  # fmt: skip
    windows = np.concatenate([phase[c] for c in corners])
    depth = np.minimum(np.arange(WINDOW), np.arange(WINDOW)[::-1])
    depth = np.minimum.reduce(np.meshgrid(depth, depth, depth))
    print(f"{len(windows)} windows; stiff fraction {windows.mean():.2f} ± {windows.mean(axis=(1, 2, 3)).std():.2f}")
    print("| contrast | window | 0–2 voxels from a face, % | from 8 voxels on, % | error of C1111, % |")
    print("|---|---|---|---|---|")
    for contrast in (10, 50):
        materials = (Isotropic(120, 0.3), Isotropic(120 * contrast, 0.3))
        whole = solve(phase, materials, LOAD).strain[:, 0]
        truth = np.concatenate([whole[c] for c in corners])
        exact = np.tile(effective_stiffness(phase, materials, tol=1e-5)[:, 0, 0], len(corners))
        for name, cells in (("as it is", windows), ("mirrored", mirror(windows))):
            strain = solve(cells, materials, LOAD).strain[:, 0, :WINDOW, :WINDOW, :WINDOW]
            off = np.abs(strain - truth).mean(axis=0) / LOAD[0]
            error = effective_stiffness(cells, materials, tol=1e-5)[:, 0, 0] / exact - 1
            near, far = (100 * off[mask].mean() for mask in (depth <= 2, depth >= 8))
            row = contrast, name, f"{near:.0f}", f"{far:.0f}", f"{100 * error.mean():+.1f} ± {100 * error.std():.0f}"
            print(f"| {' | '.join(map(str, row))} |")


if __name__ == "__main__":
    main()
