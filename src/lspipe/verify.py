"""Checks of a store against its receipts, against conditions on its values, and against samples made again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from tabulate import tabulate

from lspipe.cell.homogenize import homogenize_problem
from lspipe.cell.path import solve_path_problem
from lspipe.cell.problem import Problem, volume_fractions
from lspipe.cell.solver import solve_problem
from lspipe.dataset import read_or_generate, solve_fields, write_cells
from lspipe.files import leftovers, locked
from lspipe.progress import progress
from lspipe.solving import import_fields
from lspipe.store import Store
from lspipe.store.cells import digest_cells, find_materials, read_cells, read_materials
from lspipe.store.shards import OTHER, SOLVED, open_pair, suggest_remedy

ROUNDING = 1e-6  # relative rounding of strain in single precision
MATRICES = 1e-9  # part of a stiffness by which bounds in double precision may cross
POROUS = 100.0  # Allowed error over the residual in a cell with voids, which has no bound.
STRUCTURE, RECEIPTS, VALUES, LEFT = "attributes and arrays", "receipts and checksums", "values", "leftovers"


@dataclass
class Verdict:
    """The result of ``verify``.

    Attributes:
        checks: The things that each check looked at, by the name of the check.
        faults: Tuples (check, shard or None, description of the fault).
    """

    path: Path
    checks: dict[str, str] = field(default_factory=dict)
    faults: list[tuple[str, int | None, str]] = field(default_factory=list)

    @property
    def broken(self) -> list[int]:
        """The shards that have a fault."""
        return sorted({shard for _, shard, _ in self.faults if shard is not None})

    def table(self) -> str:
        """Return a table with a row for each check and its first faults."""
        rows = []
        for check, subject in self.checks.items():
            faults = [text if k is None else f"shard {k}: {text}" for c, k, text in self.faults if c == check]
            first = "; ".join(faults[:3]) + (" …" if faults[3:] else "")
            rows.append((check, subject, len(faults) or "–", first))
        header = (str(self.path), "checked", "faults", "the first")
        return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def verify(path: Path, again: int = 4) -> Verdict:
    """Check a store of microstructures, fields or effective properties by all checks of this module.

    Args:
        path: The store.
        again: Number of samples, drawn at random, to make again and compare.
    """
    verdict = Verdict(path, {STRUCTURE: "the store"})
    try:
        data = open_checked(path)
    except ValueError as error:
        verdict.faults.append((STRUCTURE, None, str(error)))
        return verdict
    is_solved, late = "phase" not in data.arrays, 0
    shards, samples = len(data.shards), data.count
    verdict.checks[RECEIPTS] = f"{shards} shard{'s' * (shards != 1)}"
    verdict.checks[VALUES] = f"{samples} sample{'s' * (samples != 1)}"
    with progress(f"verify {path}", len(data.shards), "shard") as bar:
        for shard in data.shards:
            if fault := data.find_fault(shard):
                verdict.faults.append((RECEIPTS, shard, fault))
            else:
                verdict.faults += [(VALUES, *fault) for fault in find_faults(data, shard)]
                late += len(data.receipt(shard)["not_converged"]) if is_solved else 0
            bar.update()
    if len(data.shards) > 1 and [text for *_, text in verdict.faults] == [OTHER] * len(data.shards):
        text = "attributes or arrays are not those that the receipts were written for"
        verdict.faults = [(STRUCTURE, None, f"{data.path}: {text}; {suggest_remedy(data.path)}")]
        return verdict
    if late:  # to solve these again would not help
        verdict.checks[VALUES] += f", {late} of which missed the tolerance"
    verdict.checks[LEFT] = "files"
    verdict.faults += [
        (LEFT, None, str(file.relative_to(data.path.parent))) for file in leftovers(data.path, data.receipts)
    ]
    check, compare = ("solved again", solve_again) if is_solved else ("made again", make_again)
    if "truth" in data.attributes:
        check, compare = "read again", read_again
    files = data.resolve_files("images_path") + data.resolve_files("truth_path")
    if missing := [file for file in files if not file.exists()]:
        verdict.checks[check] = f"nothing: {missing[0]} is not there"
        return verdict
    whole = [i for k in data.shards if k not in verdict.broken for i in range(*data.samples(k))]
    picked = np.sort(np.random.default_rng().permutation(whole)[:again]).tolist()
    verdict.checks[check] = f"samples {', '.join(map(str, picked))}" if picked else "nothing"
    for i in picked:
        try:
            difference = compare(data, i)
        except (ValueError, OSError) as error:  # the microstructures or the images are at fault
            verdict.faults.append((check, None, f"sample {i}: {error}"))
        else:
            if difference:
                verdict.faults.append((check, i // data.attributes["samples_per_shard"], f"sample {i}: {difference}"))
    return verdict


def repair(verdict: Verdict, *, workers: int = 1) -> None:
    """Make the broken shards again, and no other, and remove what killed writers left behind.

    Raises:
        ValueError: The store itself is broken.
    """
    if faults := [text for check, _, text in verdict.faults if check == STRUCTURE]:
        raise ValueError(faults[0])
    data = Store.open(verdict.path)
    with locked(data.path):
        for shard in verdict.broken:
            (data.receipts / f"{shard}.json").unlink(missing_ok=True)
        for file in leftovers(data.path, data.receipts):
            file.unlink(missing_ok=True)
    if verdict.broken and "phase" not in data.arrays:
        solve_fields(verdict.path, data.resolve("microstructures_path"), verdict.broken, workers=workers)
    elif verdict.broken:
        write_cells(verdict.path, verdict.broken)


def open_checked(path: Path) -> Store:
    """Open a store that this version writes, with its receipts and, where it was solved, its microstructures.

    Raises:
        ValueError: One of these is missing or does not fit.
    """
    data = Store.open(path)
    data.check_version()
    data.check_receipts()
    if "phase" not in data.arrays:
        try:
            open_pair(data.resolve("microstructures_path"), data.path, SOLVED)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from None
    return data


def find_faults(data: Store, shard: int) -> Iterator[tuple[int | None, str]]:
    """Yield the shard, or None where its microstructures are at fault, and what is wrong with its values."""
    samples = slice(*data.samples(shard))
    arrays = {name: array[samples] for name, array in data.arrays.items()}
    if "phase" in arrays:
        yield from ((shard, fault) for fault in find_cell_faults(arrays))
        return
    cells = Store.open(data.resolve("microstructures_path"))
    try:
        digest = digest_cells(cells, *data.samples(shard))
    except (ValueError, OSError) as error:
        yield None, str(error)
        return
    if digest != data.receipt(shard)["phase"]:
        yield shard, "belongs to other microstructures than those on disk"
        return
    if "stiffness" in data.arrays:
        yield from ((shard, fault) for fault in find_effective_faults(arrays))
        return
    if "truth" in data.attributes:  # Components, residuals and bounds may be unknown.
        yield from ((shard, f) for f in _count(~np.isfinite(arrays["strain"][:, 0]).all(axis=(1, 2, 3)), "not written"))
        return
    problem = data.path_problem.elastic if data.has_paths else data.problem
    is_void = ~np.array([material.stiffness.any() for material in problem.materials])
    void = is_void[read_materials(cells, samples)]
    faults = find_path_faults(data, arrays, void) if data.has_paths else find_field_faults(problem, arrays, void)
    yield from ((shard, fault) for fault in faults)


def find_field_faults(problem: Problem, arrays: dict[str, np.ndarray], void: np.ndarray) -> Iterator[str]:
    """Yield what is wrong with the values of a shard of fields; ``void`` (N, nx, ny, nz) is true in voids."""
    strain = arrays["strain"]
    is_finite = np.isfinite(strain)
    written = (is_finite | void[:, None]).all(axis=(1, 2, 3, 4)) & np.isfinite(arrays["residual"])
    yield from _count(~written, "not finite or not written")
    yield from _count((is_finite & void[:, None]).any(axis=(1, 2, 3, 4)), "with a strain in voids")
    # The mean of a cell with voids is NaN, and is not compared. Single precision rounds by a part of the field's size.
    mean = strain.mean(axis=(2, 3, 4), dtype=np.float64)
    size = np.sqrt(np.square(strain).mean(axis=(2, 3, 4), dtype=np.float64)).max(axis=1, keepdims=True)
    prescribed = np.array(problem.strain, float)  # NaN where the stress is prescribed instead
    off = (np.abs(mean - prescribed) > 10 * ROUNDING * size).any(axis=1)
    yield from _count(written & off, "with another mean than the macroscopic strain")


def find_path_faults(data: Store, arrays: dict[str, np.ndarray], void: np.ndarray) -> Iterator[str]:
    """Yield what is wrong with the values of a shard of load paths; ``void`` (N, nx, ny, nz) is true in voids."""
    reached, kept = arrays["converged"], data.attributes["kept"]
    means = np.concatenate([arrays["mean_strain"], arrays["mean_stress"]], axis=2)
    steps = np.array([[*strain, *(stress or [None] * 6)] for strain, stress in data.path_problem.steps], float)
    is_whole = (reached[:, :-1] >= reached[:, 1:]).all(axis=1)  # No step follows one that failed.
    is_whole &= (np.isfinite(means).all(axis=2) == reached).all(axis=1)
    yield from _count(~is_whole, "not finite or not written")
    size = np.nanmax(np.abs(means).reshape(len(means), -1, 2, 6), axis=(1, 3), initial=0).repeat(6, axis=1)[:, None]
    tol = 10 * data.attributes["tol"]
    with np.errstate(invalid="ignore"):  # A component that a step does not prescribe is NaN.
        yield from _count((np.abs(means - steps) > tol * size).any(axis=(1, 2)), "with another load than the steps")
    stored = reached[:, kept]
    strain, stress, flow = (arrays[name] for name in ("strain", "stress", "accumulated_plastic_strain"))
    written = (np.isfinite(strain).all(axis=2) | void[:, None]) & np.isfinite(stress).all(axis=2) & ~(flow < 0)
    yield from _count((written.all(axis=(2, 3, 4)) != stored).any(axis=1), "with fields that are not written")
    fields = np.concatenate([strain, stress], axis=2)
    off = np.abs(fields.mean(axis=(3, 4, 5), dtype=np.float64) - means[:, kept]) > 1e-4 * size
    yield from _count(off.any(axis=(1, 2)), "with fields of another mean than the curve")


def find_effective_faults(arrays: dict[str, np.ndarray]) -> Iterator[str]:
    """Yield what is wrong with the values of a shard of effective properties."""
    written = np.isfinite(arrays["stiffness"] + arrays["lower"] + arrays["upper"]).all(axis=(1, 2))
    yield from _count(~written, "not finite or not written")
    order = ("lower", "stiffness", "upper"), ("reuss", "upper"), ("lower", "voigt"), ("lower", "upper")
    crosses = [~is_below(arrays[a], arrays[b]) for names in order for a, b in pairwise(names)]
    yield from _count(written & np.any(crosses, axis=0), "with bounds that cross")


def is_below(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return which matrices (N, n, n) are at most others in the sense of energies, up to rounding; NaN is not."""
    difference, size = np.nan_to_num(upper - lower, nan=-np.inf), np.abs(upper).max(axis=(1, 2))
    is_finite = np.isfinite(difference).all(axis=(1, 2))
    least = np.linalg.eigvalsh(np.where(is_finite[:, None, None], difference, 0.0))[:, 0]
    return is_finite & (least >= -MATRICES * size)


def find_cell_faults(arrays: dict[str, np.ndarray]) -> Iterator[str]:
    """Yield what is wrong with the values of a shard of microstructures."""
    fractions = arrays["volume_fraction"]
    materials = fractions.shape[1]
    phases = arrays["material"].shape[1] if "material" in arrays else materials
    wrong = (arrays["phase"] >= phases).any(axis=(1, 2, 3))
    yield from _count(wrong, f"not written or with a phase above {phases - 1}")
    if "material" in arrays:
        length = np.linalg.norm(arrays["orientation"], axis=2)
        bare = (arrays["material"] >= materials).any(axis=1) | ~(np.abs(length - 1) < ROUNDING).all(axis=1)
        yield from _count(bare, "with a grain that has no material or no orientation")
        wrong |= bare
    stated = {name: array[~wrong] for name, array in arrays.items()}
    if not wrong.all():
        counted = volume_fractions(find_materials(stated), materials)
        off = ~np.isclose(counted, stated["volume_fraction"], rtol=0, atol=1e-12).all(axis=1)
        yield from _count(off, "with other volume fractions than stated")


def _count(wrong: np.ndarray, fault: str) -> Iterable[str]:
    return [f"{np.count_nonzero(wrong)} samples {fault}"] if wrong.any() else []


def solve_again(data: Store, sample: int) -> str | None:
    """Compare a sample with the solver's result, and return the difference if it is too large.

    Each strain is off by its bound at most, relative to the energy norm of the field. A cell with voids has no bound,
    and its strain may be off by ``POROUS`` times its residual.
    """
    cells = Store.open(data.resolve("microstructures_path"))
    digest_cells(cells, sample, sample + 1)  # refuses shards that are not whole
    if data.has_paths:
        return follow_again(data, sample, cells.arrays["phase"][sample])
    (phase,), problem = read_cells(cells, slice(sample, sample + 1), data.problem)
    if "stiffness" in data.arrays:
        return homogenize_again(data, sample, phase, problem)
    new = solve_problem(phase, problem, tol=data.attributes["tol"])
    assert new.bound is not None
    assert new.residual is not None
    stored = {name: data.arrays[name][sample] for name in ("strain", "bound", "residual")}
    allowed = ROUNDING
    for bound, residual in ((stored["bound"], stored["residual"]), (new.bound[0], new.residual[0])):
        allowed += bound if np.isfinite(bound) else POROUS * residual
    fields = stored["strain"] - new.strain[0], new.strain[0]
    wrong, whole = (problem.compute_energy(phase, strain) for strain in fields)
    if wrong <= allowed**2 * whole:
        return None
    return f"{np.sqrt(wrong / whole):.1e} off in the energy norm, allowed {allowed:.1e}"


def follow_again(data: Store, sample: int, phase: np.ndarray) -> str | None:
    """Compare a path of a sample with a new one, and return the first difference that is too large.

    Curves are compared by their largest difference, fields by the root of the mean square.
    """
    tol, kept = data.attributes["tol"], data.attributes["kept"]
    path = solve_path_problem(phase[None], data.path_problem, keep=kept, tol=tol, warn=False)
    if not np.array_equal(data.arrays["converged"][sample], path.converged[0]):
        return "the number of steps that were reached differs"
    for name in ("mean_strain", "mean_stress", "strain", "stress", "accumulated_plastic_strain"):
        new = np.nan_to_num(getattr(path, name)[0])
        off = np.nan_to_num(data.arrays[name][sample]) - new
        norm = np.abs(off).max() if name.startswith("mean") else np.sqrt(np.square(off).mean())
        size = np.abs(new).max() if name.startswith("mean") else np.sqrt(np.square(new).mean())
        if norm > POROUS * tol * size:
            return f"{name} {norm / size if size else np.inf:.1e} off, allowed {POROUS * tol:.1e}"
    return None


def homogenize_again(data: Store, sample: int, phase: np.ndarray, problem: Problem) -> str | None:
    """Return a text if the guaranteed intervals of the stored and of a new effective stiffness do not overlap.

    Below the upper bound of a cell with voids, which has no lower bound, ``POROUS`` times the tolerance is allowed.
    """
    tol = data.attributes["tol"]
    new = homogenize_problem(phase[None], problem, tol=tol)
    stored = {name: data.arrays[name][sample : sample + 1] for name in ("lower", "upper")}
    lower = [
        np.where(x.any(), x, (1 - POROUS * tol) * y)
        for x, y in ((stored["lower"], stored["upper"]), (new.lower, new.upper))
    ]
    if is_below(lower[0], new.upper).all() and is_below(lower[1], stored["upper"]).all():
        return None
    return "another stiffness: its guaranteed interval does not overlap that of the solver"


def read_again(data: Store, sample: int) -> str | None:
    """Compare the strain of a sample with that of its file, and return the difference."""
    cells = Store.open(data.resolve("microstructures_path"))
    arrays, _ = import_fields(cells, data, sample, sample + 1, lambda _: None)
    return (
        None
        if np.array_equal(arrays["strain"][0], data.arrays["strain"][sample], equal_nan=True)
        else "the strain differs"
    )


def make_again(data: Store, sample: int) -> str | None:
    """Compare a microstructure with the generator's, or with its image, and return the difference."""
    for name, new in read_or_generate(data, sample, sample + 1).items():
        if not np.array_equal(data.arrays[name][sample], new[0]):
            return f"{name} differs"
    return None
