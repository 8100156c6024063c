"""What a batch system, a login node or a user's shell may set, and what it may have broken."""

import importlib.util
import os
import shutil
import subprocess
import sys

import numba
import pytest
import torch
from conftest import BIN, REPOSITORY, run

from lspipe import Isotropic, __version__
from lspipe.cell.problem import Problem
from lspipe.dataset import create_fields, solve_fields, write_microstructures
from lspipe.interrupt import explain
from lspipe.store import Store
from lspipe.verify import verify

MATERIALS = [Isotropic(120, 0.3), Isotropic(1200, 0.3)]


def make(folder):
    """Eight microstructures in four shards, and room for their fields."""
    cells, fields = folder / "cells.zarr", folder / "fields.zarr"
    write_microstructures(cells, count=8, n=6, seed=0, split="train", per_shard=2)
    load = [1e-3, 0, 0, 0, 0, 0]
    create_fields(fields, cells, Problem(MATERIALS, load, scheme="bbar"), tol=1e-4, per_shard=2)
    return cells, fields


def files(fields):
    data = Store.open(fields)
    return {name: (fields / name).read_bytes() for shard in data.shards for name in data.files(shard)}


@pytest.fixture(scope="module")
def latin1(tmp_path_factory):
    """A locale whose encoding is not UTF-8: Latin-1, or ASCII where it cannot be made."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef"):
        made = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", folder / "en_US.ISO-8859-1"]
        if subprocess.run(made, capture_output=True, check=False).returncode == 0:
            return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1"}
    return {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


CONFIGURATION = (REPOSITORY / "config/test.yaml").read_text(encoding="utf-8")
NAME = "größe µ, ε ± 1.yaml"


@pytest.mark.parametrize("reading", ["locale", "ascii streams", "warnings are errors"])
def test_text_is_utf8_whatever_the_shell_says(latin1, tmp_path, reading):
    """A command reads and prints the same bytes, names files rightly and does not stop at a sign."""
    settings = {
        "locale": latin1,
        "ascii streams": {"PYTHONIOENCODING": "ascii:strict"},
        "warnings are errors": {"PYTHONWARNINGS": "error"},
    }[reading]
    (tmp_path / NAME).write_text(CONFIGURATION + "# ε ± 1\n", encoding="utf-8")

    def config(*words):
        command = [BIN / "lspipe", "config", *words]
        return subprocess.run(command, cwd=tmp_path, env=os.environ | settings, capture_output=True, check=False)

    read, printed, refused = config(NAME), config("--reference"), config("ε ±.yaml")
    assert (read.returncode, read.stderr) == (0, b"")
    assert "≥" in printed.stdout.decode()
    assert refused.stderr.decode() == "lspipe: ε ±.yaml: no such file or folder\n"


def test_a_table_is_printed_in_another_locale(latin1, pipeline, tmp_path):
    errors = f"c10,µ,{pipeline.results}/evaluation/fln/seed0/c10.parquet"
    two = ("--input", errors, "--input", errors)  # two seeds, whose spread has a ±
    done = run("lspipe", "table", tmp_path / "µ.csv", *two, cwd=tmp_path, **latin1)
    assert "±" in done.stdout
    assert "µ" in (tmp_path / "µ.csv").read_text(encoding="utf-8")


HOSTILE = {
    "COLUMNS": "wide",
    "DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME": "udp",
    "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "false",
    "HOME": "/proc/none",
    "MALLOC_ARENA_MAX": "",
    "MPLBACKEND": "none",
    "NUMBA_NUM_THREADS": "0",
    "OMP_NUM_THREADS": "100000",
    "PYTHONHASHSEED": "1",
    "PYTHONWARNINGS": "error",
    "TMPDIR": "/proc/none",
}


@pytest.mark.parametrize("count", [1, 2])
def test_fields_and_log_are_the_same_in_a_hostile_environment(latin1, tmp_path, count):
    """Standard input and output are closed, too."""
    cells, fields = make(tmp_path)
    command = f'exec "{BIN}/lspipe" solve cells.zarr fields.zarr --workers {count} <&- >&-'
    done = run("bash", "-c", command, cwd=tmp_path, **HOSTILE, **latin1)
    assert all(line.startswith("solve fields.zarr: ") for line in done.stderr.splitlines())
    assert not verify(fields).faults
    found = files(fields)
    for receipt in fields.with_suffix(".receipts").glob("*.json"):
        receipt.unlink()
    solve_fields(fields, cells)
    assert found == files(fields)


def test_a_command_without_standard_streams_does_its_work(tmp_path):
    """The first files that it opens must not take their place: what is printed would go there."""
    command = f'exec "{BIN}/lspipe" generate cells.zarr --count 4 --n 6 <&- >&- 2>&-'
    run("bash", "-c", command, cwd=tmp_path)
    assert not verify(tmp_path / "cells.zarr").faults


@pytest.mark.parametrize("limit", [{"SLURM_CPUS_PER_TASK": "1"}, {"SLURM_CPUS_ON_NODE": "1"}, "affinity", None])
def test_a_job_starts_a_worker_for_each_core_that_it_may_use(limit):
    """Dask's count covers cgroups; a SLURM without a plugin that binds tasks says it in variables alone."""
    program = "import os; print(len(os.sched_getaffinity(0))); from lspipe.machine import cores; print(cores())"
    one = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if limit == "affinity" else []
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")} | (
        limit if isinstance(limit, dict) else {}
    )
    done = subprocess.run([*one, sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    there, used = map(int, done.stdout.split())
    assert used == 1 if limit else used <= there


def test_one_core_is_one_process(tmp_path):
    make(tmp_path)
    core = str(min(os.sched_getaffinity(0)))
    solve = ("lspipe", "solve", "cells.zarr", "fields.zarr")
    done = run("taskset", "-c", core, *solve, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert "lspipe.workers" in done.stderr
    assert "distributed.scheduler" not in done.stderr


def test_threads_are_bounded(tmp_path):
    done = run("lspipe", "evaluate", "--threads", 100000, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "'--threads'" in done.stderr
    assert "999" in done.stderr


def test_a_command_without_memory_ends_in_one_line(tmp_path):
    generate = ("lspipe", "generate", "x.zarr", "--count", 64, "--n", 512)
    done = run("prlimit", f"--as={4 << 30}", *generate, cwd=tmp_path, check=False)
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if not line.startswith("microstructures"))
    assert line.startswith("lspipe: out of memory: Unable to allocate 8.00 GiB")


def test_a_device_without_memory_is_explained_and_a_bug_is_not():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    assert explain(raised.value).startswith("out of memory: ")
    assert explain(RuntimeError("shapes differ")) is None
    assert explain(KeyError("samples")) is None
    assert explain(ValueError("a\n  b")) == "a b"


def test_errors_of_the_system_begin_with_the_file():
    assert explain(FileNotFoundError(2, "No such file or directory", "a.npy")) == "a.npy: no such file or folder"
    assert explain(PermissionError(13, "Permission denied", "a.npy")) == "a.npy: permission denied"
    assert explain(FileNotFoundError(2, "Unable to open file\n(a.h5)")) == "unable to open file (a.h5)"


def test_a_full_disk_behind_standard_output_is_an_error(tmp_path):
    done = run("bash", "-c", "lspipe --version > /dev/full", cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (1, "lspipe: no space left on device\n")


def test_the_version_is_printed(tmp_path):
    assert run("lspipe", "--version", cwd=tmp_path).stdout == f"lspipe {__version__}\n"


KERNEL = """
from lspipe.cell.compiled import jit

@jit
def add(x, y):
    return x + {}
"""


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """A folder that compiled kernels go to, and a function that loads a kernel anew, as another process would."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "kernel.py").write_text(KERNEL.format("y"))

    def load():
        spec = importlib.util.spec_from_file_location("kernel", tmp_path / "kernel.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.add

    return tmp_path / "cache", load


def compilations(add):
    return sum(add.stats.cache_misses.values())


def test_a_damaged_kernel_is_compiled_again(kernels):
    cache, load = kernels
    assert load()(2, 3) == 5
    assert load()(2.0, 3.0) == 5.0
    sound = load()
    assert (sound(2, 3), sound(2.0, 3.0), compilations(sound)) == (5, 5.0, 0)
    written = {file: file.read_bytes() for file in cache.rglob("*.nb?")}
    assert len(written) == 3  # an index and two kernels
    missed = 0
    for file, data in written.items():
        for damaged in (
            b"",
            data[: len(data) // 2],
            *(flip(data, bit) for bit in range(5, 8 * len(data), 2 * len(data))),
        ):
            for other, content in written.items():
                other.write_bytes(content)
            file.write_bytes(damaged)
            add = load()
            assert (add(2, 3), add(2.0, 3.0)) == (5, 5.0)
            missed += compilations(add)
            for _ in range(2):  # what was sound is forgotten with the rest, and written once more
                again = load()
                assert (again(2, 3), again(2.0, 3.0)) == (5, 5.0)
            assert compilations(again) == 0
    assert missed >= len(written)


def test_a_kernel_is_compiled_anew_when_one_that_it_calls_through_another_changes(kernels, tmp_path, monkeypatch):
    """The three kernels are in files of their own, such as a loop, its law and a function of the law."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, called in (("law", "kernel"), ("loop", "law")):
        (tmp_path / f"{name}.py").write_text(
            f"from {called} import add as {called}\n" + KERNEL.format(f"{called}(x, y)")
        )

    def load():
        for name in ("kernel", "law", "loop"):
            sys.modules.pop(name, None)
        return importlib.import_module("loop").add

    assert load()(2, 3) == 9
    assert load()(2, 3) == 9
    (tmp_path / "kernel.py").write_text(KERNEL.format("100 * y"))
    assert load()(2, 3) == 306


def flip(data, bit):
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def test_a_kernel_is_used_where_its_file_cannot_be_written(kernels):
    cache, load = kernels
    add = load()
    shutil.rmtree(cache)
    cache.touch()  # no folder can be made here, even by root
    assert add(2, 3) == 5
    assert load()(2, 3) == 5


def test_scripts_run_in_a_clone_that_git_gives_the_line_ends_of_windows(tmp_path):
    scripts = [".ci/run", "workflow/scripts/recover.sh"]
    for name in (".gitattributes", "Makefile", *scripts):
        (tmp_path / "origin" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / "origin" / name)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.autocrlf=true")
    for command in (("init", "-q"), ("add", "-f", "."), ("commit", "-qm", "a")):
        run(*git, *command, cwd=tmp_path / "origin")
    run(*git, "clone", "-q", "origin", "clone", cwd=tmp_path)
    for name in ("Makefile", *scripts):
        assert b"\r" not in (tmp_path / "clone" / name).read_bytes()
