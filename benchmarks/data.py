"""The data stage as a whole: its rate beside the bare solver, bytes on disk, memory, rates of mini-batches.

    python benchmarks/data.py --count 512 --memory 256 1024 4096

The stage is the command ``lspipe solve`` from its start to its end: start of Python and of Dask's workers, phases read,
strain, checksums and receipts written. The bare solver is ``lspipe.solve`` on phases that are in memory, on as many
threads, its fields thrown away. They take turns; the table shows the median over the turns of their times' ratio, by
the clock and by the processors' time, which another load of the machine disturbs less. Memory is the largest resident
set of the command and of any of its workers; it and the stage's processor time are seen every 0.1 s.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep
from typing import NamedTuple

import numba
import psutil
from tabulate import tabulate

import lspipe
from lspipe.dataset import BATCH, create_fields, write_microstructures
from lspipe.loader import load
from lspipe.machine import cores
from lspipe.store import Store

STRAIN = [1e-3, 0, 0, 0, 0, 0]
COMMAND = [sys.executable, "-c", "from lspipe.cli import main; main()", "solve"]


def materials(contrast: float) -> list[lspipe.Isotropic]:
    return [lspipe.Isotropic(120.0, 0.3), lspipe.Isotropic(120.0 * contrast, 0.3)]


def make(folder: Path, count: int, n: int, per_shard: int, contrast: float) -> tuple[Path, Path]:
    cells, fields = folder / "micro.zarr", folder / "fields.zarr"
    write_microstructures(cells, count=count, n=n, seed=0, split="train", per_shard=per_shard)
    phases = materials(contrast)
    create_fields(fields, cells, materials=phases, strain=STRAIN, scheme="bbar", tol=1e-4, per_shard=per_shard)
    return cells, fields


class Stage(NamedTuple):
    seconds: float
    processor: float  # seconds, of the command and its workers
    command: float  # peak in MB
    worker: float  # of the largest


def stage(cells: Path, fields: Path, workers: int, device: str) -> Stage:
    start = perf_counter()
    words = [*COMMAND, cells, fields, "--workers", str(workers), "--device", device]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    command, processor, peak = psutil.Process(process.pid), {}, {}
    while process.poll() is None:
        try:
            for seen in (command, *command.children(recursive=True)):
                processor[seen.pid] = sum(seen.cpu_times()[:2])
                peak[seen.pid] = max(peak.get(seen.pid, 0), seen.memory_info().rss / 1e6)
        except psutil.NoSuchProcess:
            continue
        sleep(0.1)
    seconds = perf_counter() - start
    assert process.returncode == 0
    return Stage(seconds, sum(processor.values()), peak.pop(process.pid), max(peak.values(), default=0))


def bare(cells: Path, threads: int, contrast: float, device: str, per_shard: int) -> tuple[float, float]:
    """Seconds of the solver alone, by the clock and of the processors, on as many samples at a time as in the stage."""
    step = BATCH * threads if device == "cpu" else per_shard
    numba.set_num_threads(threads)
    phase = lspipe.open_dataset(cells).phase.values
    start, processor = perf_counter(), process_time()
    for first in range(0, len(phase), step):
        lspipe.solve(phase[first : first + step], materials(contrast), STRAIN, device=device)
    return perf_counter() - start, process_time() - processor


def batches_a_second(cells: Path, fields: Path, memory: float, size: int) -> float:
    """Shuffled samples a second, the second time that all are read."""
    samples, _ = load(cells, fields, memory)
    for epoch in range(2):
        start = perf_counter()
        for phase, y in samples.batches(size, order=[epoch]):
            phase.sum(), y.sum()
    return samples.total / (perf_counter() - start)


def size_of(path: Path, names: list[str]) -> int:
    return sum((path / name).stat().st_size for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=31)
    parser.add_argument("--contrast", type=float, default=10, help="of Young's moduli")
    parser.add_argument("--count", type=int, default=512, help="samples of a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--per-shard", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="that solves: cpu, or cuda, with one worker")
    parser.add_argument("--batch", type=int, default=32, help="size of the mini-batches")
    parser.add_argument("--memory", type=int, nargs="*", default=[256, 4096], help="numbers of samples")
    parser.add_argument("--folder", help="where the stores are made: on the disk in question")
    args = parser.parse_args()
    print(f"{cores()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{args.count} samples of {args.n}³, contrast {args.contrast:g}")

    alone, whole = [], []
    for _ in range(args.turns):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            cells, fields = make(Path(folder), args.count, args.n, args.per_shard, args.contrast)
            alone.append(bare(cells, args.workers, args.contrast, args.device, args.per_shard))
            whole.append(stage(cells, fields, args.workers, args.device))
            rows = [
                ("solver alone, samples/s", args.count / median(a[0] for a in alone)),
                ("stage, samples/s", args.count / median(w.seconds for w in whole)),
                ("stage / solver, by the clock", median(a[0] / w.seconds for a, w in zip(alone, whole, strict=True))),
                ("stage / solver, by processor time", median(a[1] / w[1] for a, w in zip(alone, whole, strict=True))),
            ]
            for path, name in ((fields, "strain"), (cells, "phase")):
                data = Store.open(path)
                disk = size_of(path, [f for k in data.shards for f in data.files(k) if f.startswith(name)])
                rows.append((f"{name}: bytes on disk / raw", disk / data.arrays[name].nbytes))
            rows.append(("receipts, bytes a shard", (data.receipts / "0.json").stat().st_size))
            for where, memory in (("memory", float("inf")), ("disk", 0)):
                rate = batches_a_second(cells, fields, memory, args.batch)
                rows.append((f"shuffled batches of {args.batch} from {where}, samples/s", rate))
    print(tabulate(rows, ("", "median"), tablefmt="github", floatfmt=".4g"))

    rows = []
    for count in args.memory:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            stores = make(Path(folder), count, args.n, args.per_shard, args.contrast)
            done = stage(*stores, args.workers, args.device)
            rows.append((count, count / done.seconds, done.command, done.worker))
    print(tabulate(rows, ("samples", "samples/s", "command, MB", "worker, MB"), tablefmt="github", floatfmt=".3g"))


if __name__ == "__main__":
    main()
