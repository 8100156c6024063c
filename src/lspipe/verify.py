"""Checks of a store against its receipts, against what its values must satisfy, and against a sample made again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from lspipe import DATA_VERSION, store
from lspipe.cell.solver import solve_problem
from lspipe.dataset import digest, make_cells, read_phase, solve_fields, write_cells
from lspipe.files import leftovers, locked
from lspipe.progress import progress
from lspipe.store import Store

ROUNDING = 1e-6  # of strain kept in single precision
STRUCTURE, RECEIPTS, VALUES, LEFT = "attributes and arrays", "receipts and checksums", "values", "leftovers"


@dataclass
class Verdict:
    """``checks``: what each looked at. ``faults``: (check, shard or None, what is wrong)."""

    path: Path
    checks: dict[str, str] = field(default_factory=dict)
    faults: list[tuple[str, int | None, str]] = field(default_factory=list)

    @property
    def broken(self) -> list[int]:
        """The shards with a fault."""
        return sorted({shard for _, shard, _ in self.faults if shard is not None})

    def table(self) -> str:
        """A row for each check, with its first faults."""
        rows = []
        for check, of in self.checks.items():
            said = [s if k is None else f"shard {k}: {s}" for c, k, s in self.faults if c == check]
            rows.append((check, of, len(said) or "–", "; ".join(said[:3]) + (" …" if said[3:] else "")))
        return tabulate(
            rows, (str(self.path), "checked", "faults", "the first"), tablefmt="github", disable_numparse=True
        )


def verify(path: Path, again: int = 4) -> Verdict:
    """Every check of a store of microstructures or fields; ``again`` samples, drawn at random, are made again."""
    verdict = Verdict(path, {STRUCTURE: "the store"})
    try:
        data = open_checked(path)
    except ValueError as error:
        verdict.faults.append((STRUCTURE, None, str(error)))
        return verdict
    fields = "strain" in data.arrays
    verdict.checks |= {RECEIPTS: f"{len(data.shards)} shards", VALUES: f"{data.count} samples"}
    late = 0
    with progress(f"verify {path}", len(data.shards), "shard") as bar:
        for shard in data.shards:
            if said := data.fault(shard):
                verdict.faults.append((RECEIPTS, shard, said))
            else:
                arrays = {name: a[slice(*data.samples(shard))] for name, a in data.arrays.items()}
                found = (field_faults if fields else cell_faults)(data.attributes, arrays)
                verdict.faults += [(VALUES, shard, said) for said in found]
                if fields:
                    verdict.faults += [(VALUES, *fault) for fault in of_other_cells(data, shard)]
                    late += len(data.receipt(shard).get("not_converged", []))
            bar.update()
    if len(data.shards) > 1 and [said for *_, said in verdict.faults] == [store.OTHER] * len(data.shards):
        said = "attributes or arrays are not those that the receipts were written for"
        verdict.faults = [(STRUCTURE, None, f"{data.path}: {said}; {store.remedy(data.path)}")]
        return verdict
    if late:  # as solved: to solve them again would not help
        verdict.checks[VALUES] += f", {late} of which missed the tolerance"
    verdict.checks[LEFT] = "files"
    verdict.faults += [
        (LEFT, None, str(file.relative_to(data.path.parent))) for file in leftovers(data.path, data.receipts)
    ]
    check = "solved again" if fields else "made again"
    if "images_path" in data.attributes and not store.beside(data, "images_path").exists():
        verdict.checks[check] = f"nothing: {store.beside(data, 'images_path')} is not there"
        return verdict
    whole = [i for k in data.shards if k not in verdict.broken for i in range(*data.samples(k))]
    picked = np.sort(np.random.default_rng().permutation(whole)[:again]).tolist()
    verdict.checks[check] = f"samples {', '.join(map(str, picked))}"
    for i in picked:
        try:
            said = (solved_again if fields else made_again)(data, i)
        except (ValueError, OSError) as error:  # of the microstructures, or of the images
            verdict.faults.append((check, None, f"sample {i}: {error}"))
        else:
            if said:
                verdict.faults.append((check, i // data.attributes["samples_per_shard"], f"sample {i}: {said}"))
    return verdict


def repair(verdict: Verdict, *, workers: int = 1) -> None:
    """Makes the broken shards again, and no other, and removes what killed writers left behind. Raises ValueError
    where the store itself is broken."""
    if said := [said for check, _, said in verdict.faults if check == STRUCTURE]:
        raise ValueError(said[0])
    data = Store.open(verdict.path)
    with locked(data.path):
        for shard in verdict.broken:
            (data.receipts / f"{shard}.json").unlink(missing_ok=True)
        for file in leftovers(data.path, data.receipts):
            file.unlink(missing_ok=True)
    if verdict.broken and "strain" in data.arrays:
        solve_fields(verdict.path, store.beside(data, "microstructures_path"), verdict.broken, workers=workers)
    elif verdict.broken:
        write_cells(verdict.path, verdict.broken)


def open_checked(path: Path) -> Store:
    """Open a store of this version with its receipts and, of fields, its microstructures. ValueError otherwise."""
    data = Store.open(path)
    if (version := data.attributes["data_version"]) != DATA_VERSION:
        raise ValueError(
            f"{data.path}: data_version = {version}: this lspipe writes {DATA_VERSION}; {store.remedy(data.path)}"
        )
    data.check_receipts()
    if "strain" in data.arrays:
        try:
            store.open_pair(store.beside(data, "microstructures_path"), data.path)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from None
    return data


def field_faults(attributes: dict[str, Any], arrays: dict[str, np.ndarray]) -> Iterator[str]:
    """What is wrong with the values of a shard of fields."""
    finite = np.isfinite(arrays["strain"]).all(axis=(1, 2, 3, 4)) & np.isfinite(arrays["residual"])
    yield from _count(~finite, "not finite or not written")
    E = np.array(attributes["macroscopic_strain"])
    mean = arrays["strain"].mean(axis=(2, 3, 4), dtype=np.float64)
    off = np.abs(mean - E).max(axis=1) > 10 * ROUNDING * np.abs(E).max()
    yield from _count(finite & off, "with another mean than the macroscopic strain")


def cell_faults(attributes: dict[str, Any], arrays: dict[str, np.ndarray]) -> Iterator[str]:
    """What is wrong with the values of a shard of microstructures."""
    phase, fractions = arrays["phase"], arrays["volume_fraction"]
    phases = fractions.shape[1]
    outside = (phase >= phases).any(axis=(1, 2, 3))
    yield from _count(outside, f"not written or with a phase above {phases - 1}")
    found = np.stack([(phase == p).mean(axis=(1, 2, 3)) for p in range(phases)], axis=1)
    off = ~np.isclose(found, fractions, rtol=0, atol=1e-12).all(axis=1)
    yield from _count(~outside & off, "with other volume fractions than stated")


def of_other_cells(data: Store, shard: int) -> Iterator[tuple[int | None, str]]:
    """Shard, or None where it is the microstructures' fault, and what is wrong between a shard and its cells."""
    try:
        phase = read_phase(store.beside(data, "microstructures_path"), *data.samples(shard))
    except (ValueError, OSError) as error:
        yield None, str(error)
    else:
        if digest(phase) != data.receipt(shard).get("phase"):
            yield shard, "of other microstructures than are there"


def _count(wrong: np.ndarray, said: str) -> Iterable[str]:
    return [f"{np.count_nonzero(wrong)} samples {said}"] if wrong.any() else []


def solved_again(data: Store, sample: int) -> str | None:
    """Compares a sample's strain with the solver's. Each is off by its bound at most, relative to the energy norm of
    the field, which the uniform strain exceeds."""
    phase = read_phase(store.beside(data, "microstructures_path"), sample, sample + 1)[0]
    problem = data.problem
    new = solve_problem(phase, problem, tol=data.attributes["tol"])
    assert new.bound is not None
    uniform = np.broadcast_to(np.reshape(np.array(problem.strain, float), (-1, 1, 1, 1)), new.strain[0].shape)
    difference = data.arrays["strain"][sample] - new.strain[0]
    energy, reference = (problem.compute_energy(phase, strain) for strain in (difference, uniform))
    error, allowed = np.sqrt(energy / reference), data.arrays["bound"][sample] + new.bound[0] + ROUNDING
    return None if error <= allowed else f"{error:.1e} off in the energy norm, allowed {allowed:.1e}"


def made_again(data: Store, sample: int) -> str | None:
    """Compares a microstructure with the generator's, or with its image."""
    for name, new in make_cells(data, sample, sample + 1).items():
        if not np.array_equal(data.arrays[name][sample], new[0]):
            return f"another {name}"
    return None
