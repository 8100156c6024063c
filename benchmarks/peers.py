"""Other solvers of the same problem, trilinear hexahedra and conjugate gradients: muGrid and FANS.

Each function takes cells ``phase`` (N, n, n, n) of two phases, their bulk and shear moduli, a macroscopic strain
without shear and the tolerance of the residual's Euclidean norm relative to that of the start. It returns seconds of
the conjugate gradients alone, the iterations (N,) and the periodic displacement (N, 3, n, n, n).
"""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

PLACE = "/cell/phase"
SINGLE = {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def run_mugrid(phase, bulk, shear, strain, tol):
    """muGrid (pip install muGrid NuMPI muTimer): fused HEX8 operator, Green preconditioner, float64."""
    import muGrid
    from muGrid.Preconditioners import make_reference_stiffness_preconditioner
    from muGrid.Solvers import conjugate_gradients

    lame = np.array([bulk - 2 / 3 * shear, shear])  # λ and μ of the two phases
    spacing = [1.0, 1.0, 1.0]
    stiffness = muGrid.IsotropicStiffnessOperator3D(spacing)
    engine = muGrid.FFTEngine([phase.shape[1]] * 3, ghosts=stiffness)
    lambda0, mu0 = (lame.min(axis=1) + lame.max(axis=1)) / 2
    green = make_reference_stiffness_preconditioner(
        engine, element=muGrid.FEMElement.q1, grid_spacing=spacing, lambda_ref=lambda0, mu_ref=mu0
    )
    fields = [engine.real_space_field(name) for name in ("lambda", "mu")]
    b, u = (engine.real_space_field(name, (3,)) for name in ("b", "u"))

    def apply(x, y):
        engine.communicate_ghosts(x)
        stiffness.apply(x, *fields, y)

    seconds, iterations, displacement = 0.0, [], []
    for cell in phase:
        for field, values in zip(fields, lame, strict=True):
            field.p[...] = values[cell]
            engine.communicate_ghosts(field)
        stiffness.apply_macro_rhs(
            *(f._cpp for f in fields), [strain[0], 0, 0, 0, strain[1], 0, 0, 0, strain[2]], b._cpp
        )
        b.p[...] *= -1
        u.set_zero()
        history = []
        start = perf_counter()
        conjugate_gradients(
            engine.communicator,
            engine.real_space_collection,
            b,
            u,
            apply,
            green,
            rtol=tol,
            callback=lambda i, _, history=history: history.append(i),
        )
        seconds += perf_counter() - start
        iterations.append(history[-1])
        displacement.append(np.array(u.p))
    return seconds, np.array(iterations), np.stack(displacement)


def run_fans(executable, phase, bulk, shear, strain, tol):
    """FANS (github.com/DataAnalyticsEngineering/FANS; C++, FFTW), a process for each cell. Needs h5py. Its seconds
    are those that it prints, CPU time.

    FANS 0.6 pads the rows of an in-place FFT by two values, which is right for an even n_z only: with an odd one
    its residual stalls near 0.2. Odd grids need an executable that pads them by one.
    """
    import h5py

    nx, ny, nz = phase.shape[1:]
    if nx * ny * (nz // 2 + 1) % 2:
        raise ValueError(f"phase has shape {phase.shape}: FANS needs nx·ny·(nz // 2 + 1) even")
    settings = {
        "microstructure": {"filepath": "cell.h5", "datasetname": PLACE, "L": [nx, ny, nz]},
        "problem_type": "mechanical",
        "strain_type": "small",
        "FE_type": "HEX8",
        "materials": [
            {
                "phases": [0, 1],
                "matmodel": "LinearElasticIsotropic",
                "material_properties": {"bulk_modulus": list(bulk), "shear_modulus": list(shear)},
            }
        ],
        "method": "cg",
        "error_parameters": {"measure": "L2", "type": "relative", "tolerance": tol},
        "n_it": 2000,
        "macroscale_loading": [[list(strain)]],
        "results": ["displacement_fluctuation"],
    }
    seconds, iterations, displacement = 0.0, [], []
    for cell in phase:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with h5py.File(folder / "cell.h5", "w") as file:
                file[PLACE] = cell.astype(np.uint16)
                file[PLACE].attrs["permute_order"] = "xyz"  # its own order is z, y, x
            (folder / "in.json").write_text(json.dumps(settings))
            command = [Path(executable).resolve(), "in.json", "out.h5"]
            done = subprocess.run(command, cwd=folder, env=os.environ | SINGLE, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{executable} ended with {done.returncode}: {done.stdout[-2000:]}")
            with h5py.File(folder / "out.h5") as file:
                u = file[f"{PLACE}_results/load0/time_step0/displacement_fluctuation"][:]
        seconds += float(re.search(r"# Total Time \.+\s+(\S+) sec", done.stdout)[1])
        iterations.append(len(re.findall(r": it \d+ \.\.\.\. err", done.stdout)))
        displacement.append(u.reshape(nz, ny, nx, 3).transpose(3, 2, 1, 0))
    return seconds, np.array(iterations), np.stack(displacement)
