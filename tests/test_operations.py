"""Operations of a prediction: of networks by hand from their layers, of the solver by numbers that count themselves."""

import operator
from functools import reduce

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher
from problems import anisotropic

from lspipe import Conductor, Isotropic, load_model
from lspipe.cell import kernels as numba_kernels
from lspipe.cell import transform
from lspipe.cell.operator import Constants
from lspipe.cell.operator_numba import NumbaOperator
from lspipe.cell.problem import Problem
from lspipe.models.architectures import build
from lspipe.models.domain import Domain
from lspipe.models.localization import LocalizationModel
from lspipe.models.operations import count_folded, operations

MATERIALS = (Isotropic(120, 0.3), Isotropic(1200, 0.3))
CRYSTALS = (anisotropic(0), anisotropic(1))
CONDUCTORS = (Conductor(1.0), Conductor(10.0))
LOAD = (1e-3, 0.0, 0.0, 0.0, 0.0, 0.0)
PROBLEM = Problem(MATERIALS, LOAD)
GRID = (4, 4, 4)


def network(architecture):
    return LocalizationModel(build(architecture, 2), [Domain(MATERIALS, LOAD)])


def test_a_network_takes_what_its_layers_do():
    """FLN at 12³: on the cell padded to 16³, at half the resolution, and what is not cropped, 14³."""
    full, coarse = 16**3, 8**3
    products = full * 27 * 16 * (6 + 16)  # begin
    products += coarse * 32 * (8 * 16 + 2 * 27 * 32 + 8 * 32)  # down, two convolutions, up
    products += 14**3 * 27 * 48 * 32  # end_1
    products += 14**2 * 12 * 3 * 9 * 32  # the last two layers: nine convolutions along z
    weights = 16 * 27 * 32 + 16  # the last two layers' as one
    assert operations(network("fln"), (12, 12, 12), PROBLEM) == {1: 2 * (products + weights)}


def test_every_pass_counts():
    one, five = (operations(network(name), (8, 9, 10), PROBLEM) for name in ("fln", "rln"))
    assert five == {k: k * one[1] for k in range(1, 6)}


class Number:
    """Counts the operations that it takes part in."""

    done = 0

    def count(self, _):
        Number.done += 1
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = count


def numbers(like):
    return np.full(np.shape(like), Number(), dtype=object)


def counted(run):
    Number.done = 0
    run()
    return Number.done


def apply_green(constants):
    """K⁰⁻¹ by NumPy, without folding, which so small a grid does not have."""
    bases = [numbers(basis) for basis in constants.bases]
    d, symbol = constants.d, Number()
    z = transform.analyse(bases, numbers(np.empty((constants.d, *GRID))))
    z = np.stack([reduce(operator.add, [z[j] * symbol for j in range(d)]) for _ in range(d)])
    transform.synthesize(bases, z)


@pytest.mark.parametrize("n", [5, 19, 20, 31, 48, 62, 96])
def test_a_folded_product_takes_what_its_steps_do(n):
    """Rows are added and subtracted in pairs, and a block of the folded basis is multiplied."""
    functions = transform.functions(n, derived=False)
    x, basis = numbers(functions[0]), transform.folded(functions)
    outer, inner = transform.pairs(n)

    def product():
        for i, j in [*outer, *inner]:
            if i != j:
                x[i], x[j] = x[i] + x[j], x[i] - x[j]
        for r, s, k in transform.blocks(n, derived=False):
            for column in numbers(basis[r : r + k, s : s + k]).T:
                reduce(operator.add, column * x[r : r + k])

    assert counted(product) == pytest.approx(n * count_folded(n), rel=0.1)  # n additions fewer than multiplications


@pytest.mark.parametrize(("scheme", "groups"), [("bbar", 11), ("full", 11), ("reduced", 16)])
def test_rows_that_are_not_coupled_are_groups_of_their_own(scheme, groups):
    """Of 21 modes of a voxel that move, those that one matrix couples. Without such groups a product takes longer."""
    op = NumbaOperator(Constants(Problem(MATERIALS, LOAD, scheme=scheme), GRID))
    assert len(op.precisions[np.dtype(np.float32)].groups[0]) == groups


@pytest.fixture
def kernels(request, monkeypatch):
    """What the solver's kernels do when Python runs them on such numbers: K, K⁰⁻¹, an update, an inner product."""
    materials = getattr(request, "param", MATERIALS)
    op = NumbaOperator(Constants(Problem(materials, LOAD[: len(materials[0].physics.components)]), GRID))
    own = op.precisions[np.dtype(np.float32)]
    voxels = op.voxels(np.zeros((1, *GRID), np.uint16))
    u, work = numbers(op.empty(1, np.float32).nodal), op._buffers(np.dtype(np.float32))
    strips = [numbers(buffer) for buffer in work[0]]
    matrix, *strains = ((numbers(data), *at) for data, *at in (own.matrices, *own.strains))
    groups = own.groups[0], numbers(own.groups[1])
    with monkeypatch.context() as patch:
        for name, kernel in list(vars(numba_kernels).items()):
            if isinstance(kernel, Dispatcher):
                patch.setattr(numba_kernels, name, kernel.py_func)
        table, moments, offset = (
            numbers(own.table),
            numbers(op.constants.uniform[:, 0]),
            np.zeros(len(op.constants.uniform)),
        )
        of_nodes = counted(
            lambda: numba_kernels.apply_stiffness(
                voxels, GRID, table, matrix, groups, strains, u, offset, u.copy(), moments, strips
            )
        )
        green = counted(lambda: apply_green(op.constants))
        n = op.constants.d * np.prod(GRID)
        update = counted(lambda: numba_kernels.axpby(Number(), u[:n], Number(), u[:n]))
        inner = counted(lambda: numba_kernels.inner(u[:n], u[:n]))
    return of_nodes * np.prod(GRID) / len(voxels), green, update, inner  # voxels end at nodes that start none


@pytest.mark.parametrize(
    ("kernels", "materials"),
    [[MATERIALS] * 2, [CRYSTALS] * 2, [CONDUCTORS] * 2],
    ids=["elastic", "crystals", "thermal"],
    indirect=["kernels"],
)
def test_an_iteration_takes_what_its_kernels_do(kernels, materials):
    K, green, update, inner = kernels
    found = operations(load_model("cg"), GRID, Problem(materials, LOAD[: len(materials[0].physics.components)]))
    assert found[5] - found[4] == pytest.approx(K + green + 3 * update + 2 * inner, rel=0.05)


@pytest.mark.parametrize("passes", [0, 1, 3])
def test_a_prediction_takes_its_applications_of_both_operators(kernels, monkeypatch, passes):
    """Counted as they are called, with the vectors' updates of each by hand; of RLN-CG also its layers."""
    K, green, update, inner = kernels
    calls = {"apply_stiffness": 0, "apply_green": 0}
    for name in calls:
        method = getattr(NumbaOperator, name)

        def count(self, *arguments, name=name, method=method):
            calls[name] += 1
            return method(self, *arguments)

        monkeypatch.setattr(NumbaOperator, name, count)
    phase = np.random.default_rng(0).integers(0, 2, (1, *GRID))
    for name in ("cg", "rln-cg") if passes else ("cg",):
        model = load_model(name)
        calls |= dict.fromkeys(calls, 0)
        assert model.predict(phase, MATERIALS, LOAD, passes=passes).iterations == passes
        voxels, steps = np.prod(GRID), 2 * passes + 1
        fields = voxels * (3 * 24 + 2 * (9 + 15))  # nine entries of the mean strain, fifteen of two stiffnesses
        expected = calls["apply_stiffness"] * K + calls["apply_green"] * green + fields
        if name == "cg":
            expected += 3 * passes * update + 2 * (passes + 1) * inner
        else:
            expected += 2 * voxels * (27 * 8 * (4 + 3 * 8) + 8 * 8)  # features: four layers, and h
            expected += 2 * voxels * (passes + 1) * 27 * 3 * 4 * 2 * 2  # S: four convolutions, two dilations, W and Wᵀ
            expected += (steps + sum(min(j, 5) for j in range(steps))) * (2 * update + inner)
        found = operations(model, GRID, PROBLEM)[passes]
        assert found == pytest.approx(expected, rel=0.05), name


def test_large_grids_take_fourier_transforms():
    """2.5 N log₂ N each, three there and three back in an iteration; all the rest is for each voxel the same."""
    grids = (2048, 4, 4), (4096, 4, 4)
    assert not any(map(transform.is_dense, grids))
    small, large = ((at[5] - at[4]) / np.prod(g) for g in grids for at in [operations(load_model("cg"), g, PROBLEM)])
    assert large - small == pytest.approx(6 * 2.5, rel=0.02)
