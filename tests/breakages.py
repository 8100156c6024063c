"""One-line breakages of the solver, each with the test that must go red: `python tests/breakages.py [rows]`.

Each row is applied to a copy of the package and its test is run against the copy. Exits 1 if a test stays green.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent
DIRECT, CELL, TRANSFORM = "test_cell_direct.py", "test_cell.py", "test_transform.py"

# file of lspipe.cell, text, its replacement, test file, tests (pytest -k)
TABLE = [
    ("element", "(5, 1, 0)", "(5, 0, 0)", DIRECT, "test_gradient"),
    ("element", "/ np.sqrt(3)", "/ np.sqrt(2)", DIRECT, "test_stiffness"),
    ("element", "TRACE / 3, vol", "TRACE / 2, vol", DIRECT, "test_bbar_integrates"),
    ("element", 'if scheme == "bbar"', 'if scheme == "never"', DIRECT, "test_bbar_integrates"),
    ("element", "volumetric.mean(axis=0) - volumetric", "volumetric - volumetric.mean(axis=0)", DIRECT, "test_bbar"),
    ("element", "[(0.5, 0.5, 0.5)] if", "[(0.5, 0.5, 0.4)] if", DIRECT, "test_reduced_is"),
    ("element", "1.0, -1.0) / spacing", "1.0, -1.0)", DIRECT, "test_gradient"),
    ("element", "self.volume / len(self.B)", "1.0 / len(self.B)", DIRECT, "test_stiffness"),
    ("element", "(2.0 * c - 1) ** m", "(1 - 2.0 * c) ** m", DIRECT, "test_gradient"),
    ("element", "np.eye(d)).T / 8", "np.eye(d)).T / 4", DIRECT, "test_gradient"),
    ("element", "CORNERS[b] - CORNERS[a] + 1", "CORNERS[b] - CORNERS[a][::-1] + 1", DIRECT, "test_green"),
    ("element", "[-1, 0, 1]) / n)", "[-1, 0, 2]) / n)", DIRECT, "test_green"),
    ("element", "inverse[zero] = 0.0", "inverse[zero] = np.eye(d)", DIRECT, "test_green"),
    ("transform", "-one if 2 * j <= ny else one", "one if 2 * j <= ny else -one", TRANSFORM, "products"),
    ("transform", "mk = (nz - k) % nz", "mk = k", DIRECT, "test_green"),
    ("transform", "mi, mj = (nx - i) % nx, (ny - j) % ny", "mi, mj = i, (ny - j) % ny", DIRECT, "test_green"),
    ("transform", "one if 2 * j <= ny else -one, one", "one, one", TRANSFORM, "products"),
    ("transform", "s=r.shape[1:], axes", "axes", TRANSFORM, "products"),
    ("transform", "/ np.sqrt(n)", "/ n", TRANSFORM, "inverse"),
    ("operator_numba", "(i + 1) % nx, (j + 1) % ny", "(i + 1) % nx, min(j + 1, ny - 1)", DIRECT, "test_gradient"),
    ("operator_numba", "row[h, nz] = row[h, 0]", "row[h, nz] = row[h, nz - 1]", DIRECT, "test_gradient"),
    ("operator_numba", "(even[nz - 1] + odd[nz - 1])", "(even[nz - 1] - odd[nz - 1])", DIRECT, "test_stiffness"),
    ("operator_numba", "coefficients[phase[i, j, k], b]", "coefficients[phase[i, j, 0], b]", DIRECT, "test_stiffness"),
    ("operator_numba", "C[phase[i, j, k], s, t]", "C[phase[i, j, 0], s, t]", DIRECT, "test_fields and strain"),
    ("operator_numba", "y[i] += a * x[i]", "y[i] = a * x[i]", DIRECT, "test_fields and strain"),
    ("operator", "-self.volume * f", "self.volume * f", DIRECT, "test_divergence"),
    ("operator", "-self.volume * f", "-f", DIRECT, "test_divergence"),
    ("operator", "hexahedron.stiffness(self.C0)", "hexahedron.stiffness(2 * self.C0)", DIRECT, "test_green"),
    ("material", "[1.0, 1.0, 1.0, 0.5, 0.5, 0.5]", "[1.0, 1.0, 1.0, 0.5, 0.5, 1.0]", DIRECT, "test_fields and strain"),
    ("material", "[1.0 * shear] * 3", "[2.0 * shear] * 3", DIRECT, "test_stiffness"),
    ("material", "(3 * (1 - 2 * self.poisson))", "(3 * (1 - self.poisson))", DIRECT, "test_stiffness"),
    ("material", "eigvals_only=True)[0]", "eigvals_only=True)[-1]", DIRECT, "test_certificate"),
    ("material", "C[:, [0, 3], [1, 3]]", "C[:, [0, 3], [0, 3]]", DIRECT, "test_stiffness"),
    ("solver", "V = op.volume * phase.size", "V = phase.size", DIRECT, "test_fields and mixed"),
    ("solver", "V * S - VC @ E", "V * S + VC @ E", DIRECT, "test_fields and mixed"),
    ("solver", "x[nodal:] @ F", "-x[nodal:] @ F", DIRECT, "test_fields and mixed"),
    ("solver", "E[free] = x[nodal:]", "E[free] = -x[nodal:]", DIRECT, "test_fields and mixed"),
    ("solver", "+ r[:nodal]) @", "- r[:nodal]) @", DIRECT, "test_certificate"),
    ("solver", "floor2) / alpha / energy)", "floor2) / energy)", DIRECT, "test_certificate"),
    ("solver", "op.alpha[fractions > 0].min()", "op.alpha.max()", DIRECT, "test_certificate"),
    ("solver", "np.sqrt(rho / load2) if", "rho / load2 if", DIRECT, "test_certificate or test_residual"),
    ("solver", "    r = f - K(x, Kp)\n", "", DIRECT, "test_residual"),
    ("solver", "tol**2 * load2", "tol * load2", CELL, "test_tolerance"),
    ("solver", "ROUNDING = 1e-13", "ROUNDING = 1e-5", CELL, "test_tolerance"),
    ("solver", "1.01 * target", "100 * target", CELL, "one_iteration_short"),
    ("solver", "beta = rho / previous", "beta = 0.0", DIRECT, "test_fields"),
    ("solver", "target and iterations <", "target and iterations <=", DIRECT, "certificate"),
    ("solver", "TENSOR_SHEAR[:, None, None, None] * strain", "strain", DIRECT, "test_fields and strain"),
    ("arguments", "E / TENSOR_SHEAR, S", "E, S", DIRECT, "test_fields and strain"),
    ("arguments", "dtype=np.uint16", "dtype=np.uint8", CELL, "many_phases"),
    ("solver", "phase.shape[1:], h, scheme)", 'phase.shape[1:], h, "bbar")', DIRECT, "test_fields and strain"),
]


def goes_red(row, folder):
    name, text, replacement, files, tests = row
    # Time stamps are kept, and with them the compiled kernels of the files that stay as they are.
    shutil.copytree(TESTS.parent / "src", folder / "src")
    broken = folder / f"src/lspipe/cell/{name}.py"
    source = broken.read_text()
    assert text in source, f"{name}: {text!r} is not there any more"
    broken.write_text(source.replace(text, replacement, 1))
    command = ["-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", "-k", tests]
    env = os.environ | {"PYTHONPATH": str(folder / "src"), "NUMBA_NUM_THREADS": "1"}
    where = [str(TESTS / file) for file in files.split()]
    done = subprocess.run([sys.executable, *command, *where], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout
    return done.returncode == 1


def main(rows):
    green = 0
    for i in rows or range(len(TABLE)):
        with tempfile.TemporaryDirectory() as folder:
            red = goes_red(TABLE[i], Path(folder))
        green += not red
        print(f"{i:3} {'red  ' if red else 'GREEN'} {TABLE[i][0]}: {TABLE[i][1]!r} → {TABLE[i][2]!r}", flush=True)
    sys.exit(f"{green} breakages go unnoticed" if green else 0)


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])
