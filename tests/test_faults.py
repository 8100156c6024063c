"""What a data set survives: killed workers, killed commands, a killed workflow, a full disk, broken files, two jobs
with one range. Each fault strikes when some shards are done and some are not; afterwards the store verifies and is,
byte for byte, the one that nothing disturbed."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import psutil
import pytest
import xarray as xr
import yaml
from conftest import BIN, REPOSITORY, run
from distributed import LocalCluster

from lspipe import Isotropic, open_dataset, workers
from lspipe.cell.problem import Problem
from lspipe.dataset import create_fields, solve_fields, write_microstructures
from lspipe.progress import progress
from lspipe.store import Store
from lspipe.verify import repair, verify

COUNT, N, PER_SHARD, SHARDS, TOL = 64, 16, 4, 16, 1e-9
WHOLE = range(14)  # shards that a store keeps whose other shards are lost
MATERIALS = [Isotropic(120, 0.3), Isotropic(6000, 0.3)]
LOAD = [1e-3, 0, 0, 0, 0, 0]


def allocate(folder, per_shard=PER_SHARD):
    cells, fields = folder / "train.zarr", folder / "c50.zarr"
    create_fields(fields, cells, Problem(MATERIALS, LOAD, scheme="bbar"), tol=TOL, per_shard=per_shard)
    return cells, fields


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Microstructures and fields of 16 shards, by one worker from the first to the last."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_microstructures(folder / "train.zarr", count=COUNT, n=N, seed=0, split="train", per_shard=PER_SHARD)
    cells, fields = allocate(folder)
    solve_fields(fields, cells)
    return folder


@pytest.fixture
def empty(undisturbed, tmp_path):
    """The microstructures, and room for their fields."""
    for name in ("train.zarr", "train.receipts"):
        shutil.copytree(undisturbed / name, tmp_path / name)
    return allocate(tmp_path)


@pytest.fixture
def most(empty, undisturbed):
    """The fields without their last two shards."""
    cells, fields = empty
    shutil.copytree(undisturbed / "c50.zarr", fields, dirs_exist_ok=True)
    shutil.copytree(undisturbed / "c50.receipts", fields.with_suffix(".receipts"), dirs_exist_ok=True)
    for shard in range(len(WHOLE), SHARDS):
        lose(fields, shard)
    return cells, fields


def lose(fields, shard):
    data = Store.open(fields)
    (data.receipts / f"{shard}.json").unlink()
    for file in data.files(shard):
        (fields / file).unlink()


def start(*command, cwd):
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "NUMBA_NUM_THREADS": "1"}
    return subprocess.Popen(list(map(str, command)), cwd=cwd, env=env, stderr=subprocess.PIPE, text=True)


def finished(fields):
    """The shards that have a receipt."""
    return {int(receipt.stem) for receipt in fields.with_suffix(".receipts").glob("[0-9]*.json")}


def wait_until_partly_done(process, fields, least=2):
    """The shards that are done when at least so many, and not all, are; the process still runs."""
    while len(done := finished(fields)) < least:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    assert process.poll() is None
    return done


def times(fields, shards):
    """When the files of shards were written, but for the strain, which Snakemake touches."""
    data = Store.open(fields)
    names = [name for shard in shards for name in data.files(shard) if not name.startswith("strain")]
    return {name: (fields / name).stat().st_mtime_ns for name in names}


def assert_undisturbed(fields, undisturbed):
    verdict = verify(fields, again=0)  # solving again is the comparison below
    assert not verdict.faults, verdict.table()
    data, truth = Store.open(fields), undisturbed / "c50.zarr"
    for file in (file for shard in data.shards for file in data.files(shard)):
        assert (fields / file).read_bytes() == (truth / file).read_bytes(), file


def test_a_killed_worker_is_replaced(empty, undisturbed):
    cells, fields = empty
    process = start("lspipe", "solve", cells, fields, "--workers", 2, cwd=fields.parent)
    done = wait_until_partly_done(process, fields)
    (server,) = (c for c in psutil.Process(process.pid).children() if "forkserver" in " ".join(c.cmdline()))
    pool = server.children()
    assert len(pool) == 2
    pool[0].kill()
    assert len(finished(fields)) < SHARDS, "all shards were done before the worker was killed"
    assert process.wait() == 0, process.stderr.read()
    assert 2 <= len(done) < SHARDS
    assert_undisturbed(fields, undisturbed)


def die(shard, topic):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_shard_that_kills_its_workers_ends_the_job():
    with pytest.raises(ChildProcessError, match="four workers died at the same shard"):
        workers.run(die, [0], progress("die", 1, "sample"), workers=2, scheduler=None)


def test_a_killed_command_goes_on(empty, undisturbed):
    cells, fields = empty
    process = start("lspipe", "solve", cells, fields, "--workers", 2, cwd=fields.parent)
    wait_until_partly_done(process, fields)
    pool = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    psutil.wait_procs(pool, timeout=60)
    assert not any(worker.is_running() for worker in pool), "workers outlived the command"
    done = finished(fields)
    assert 2 <= len(done) < SHARDS
    kept = times(fields, done)
    assert set(verify(fields, again=0).broken) == set(range(SHARDS)) - done
    run("lspipe", "solve", cells, fields, "--workers", 2, cwd=fields.parent)
    assert times(fields, done) == kept
    repair(verify(fields, again=0))  # what the workers may have left half written
    assert_undisturbed(fields, undisturbed)


def test_a_killed_workflow_goes_on(undisturbed, tmp_path):
    """Snakemake dies; the job that it had started lives on and writes the shards that the next run is to write."""
    config = yaml.safe_load((REPOSITORY / "config/test.yaml").read_text())
    config["microstructures"] |= {"n": N, "train": COUNT}
    config["solver"] = {"tol": TOL}
    config["jobs"] = {"samples_per_shard": PER_SHARD, "shards_per_job": SHARDS // 2}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    target = "results/test/fields/c50/train.receipts/all.jsonl"
    command = ("snakemake", "--snakefile", REPOSITORY / "Snakefile", "--configfile", "config.yaml", "--cores", 2)
    process = start(*command, target, cwd=tmp_path)
    fields = tmp_path / "results/test/fields/c50/train.zarr"
    wait_until_partly_done(process, fields)
    process.kill()
    process.wait()
    done = finished(fields)
    assert 2 <= len(done) < SHARDS
    kept = times(fields, done)
    locked = run(*command, target, cwd=tmp_path, check=False)
    assert "--unlock" in locked.stdout + locked.stderr
    run(*command, "--unlock", cwd=tmp_path)
    run(*command, target, cwd=tmp_path)
    assert times(fields, done) == kept
    lines = (tmp_path / target).read_text().splitlines()
    assert [json.loads(line)["samples"][0] for line in lines] == list(range(0, COUNT, PER_SHARD))
    assert_undisturbed(fields, undisturbed)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB, too small for the fields."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="to mount a file system takes root")
def test_a_full_disk(small_disk, empty, undisturbed):
    cells, _ = empty
    for name in ("train.zarr", "train.receipts"):
        shutil.move(cells.parent / name, small_disk / name)
    cells, fields = allocate(small_disk)
    full = run("lspipe", "solve", cells, fields, "--workers", 2, cwd=small_disk, check=False)
    assert full.returncode == 1
    assert re.fullmatch(rf"lspipe: {small_disk}/\S+: no space left on device", full.stderr.splitlines()[-1])
    assert "Traceback" not in full.stderr
    done = finished(fields)
    assert 2 <= len(done) < SHARDS
    assert set(verify(fields, again=0).broken) == set(range(SHARDS)) - done
    subprocess.run(["mount", "-o", "remount,size=60m", small_disk], check=True)
    run("lspipe", "solve", cells, fields, "--workers", 2, cwd=small_disk)
    assert_undisturbed(fields, undisturbed)


def test_microstructures_that_do_not_fit_on_the_disk_are_made_later(tmp_path):
    """Their store is there before its shards are."""
    config = yaml.safe_load((REPOSITORY / "config/test.yaml").read_text())
    config["microstructures"] |= {"n": 32, "test": 9}
    config["jobs"] = {"samples_per_shard": 3, "shards_per_job": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = ["snakemake", "--snakefile", REPOSITORY / "Snakefile", "--configfile", "config.yaml", "--cores", 1]
    target = "results/test/fields/c10/test.zarr/zarr.json"
    limited = tmp_path / "bin/lspipe"
    limited.parent.mkdir()
    limited.write_text(f'#!/bin/sh\nexec prlimit --fsize=8192 {BIN / "lspipe"} "$@"\n')
    limited.chmod(0o755)
    path = os.pathsep.join(map(str, (limited.parent, BIN, os.environ["PATH"])))
    full = run(*command, "results/test/microstructures/test.zarr/zarr.json", cwd=tmp_path, check=False, PATH=path)
    assert "file too large" in full.stdout + full.stderr
    cells = tmp_path / "results/test/microstructures/test.zarr"
    assert cells.joinpath("zarr.json").exists()
    assert len(finished(cells)) < 3
    run(*command, target, cwd=tmp_path)
    assert not verify(cells).faults


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["strain", "residual"])
@pytest.mark.parametrize("fault", [truncate, flip, os.unlink])
def test_a_broken_file(most, undisturbed, fault, name):
    _, fields = most
    (file,) = (file for file in Store.open(fields).files(3) if file.startswith(name))
    fault(fields / file)
    kept = times(fields, {*WHOLE} - {3})
    verdict = verify(fields, again=0)
    said = f"{file}: missing" if fault is os.unlink else f"{file}: checksum differs"
    unsolved = [("receipts and checksums", shard, "no receipt") for shard in range(len(WHOLE), SHARDS)]
    assert verdict.faults == [("receipts and checksums", 3, said), *unsolved]
    repair(verdict)
    assert times(fields, {*WHOLE} - {3}) == kept
    assert_undisturbed(fields, undisturbed)


def test_two_jobs_with_one_range(empty, undisturbed):
    """Harmless: both write the same bytes, each file whole."""
    cells, fields = empty
    jobs = [start("lspipe", "solve", cells, fields, "--workers", 1, cwd=fields.parent) for _ in range(2)]
    done = wait_until_partly_done(jobs[0], fields)
    assert jobs[1].poll() is None
    assert 2 <= len(done) < SHARDS
    other = {"problem": Problem(MATERIALS, LOAD, scheme="full"), "tol": TOL, "per_shard": PER_SHARD}
    with pytest.raises(ValueError, match=r"c50\.zarr: another process is writing here; wait until it has ended"):
        create_fields(fields, cells, **other, replace=True)
    for job in jobs:
        assert job.wait() == 0, job.stderr.read()
    assert_undisturbed(fields, undisturbed)


def test_the_same_in_one_shard_of_a_cluster_that_is_there_already(undisturbed, tmp_path):
    """Whose workers have another working directory than the command."""
    write_microstructures(tmp_path / "train.zarr", count=COUNT, n=N, seed=0, split="train", per_shard=COUNT)
    _, fields = allocate(tmp_path, per_shard=COUNT)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        done = run("lspipe", "solve", "train.zarr", "c50.zarr", "--scheduler", cluster.scheduler_address, cwd=tmp_path)
    assert f"{COUNT}/{COUNT}" in done.stderr
    for name in ("train.zarr", "c50.zarr"):
        xr.testing.assert_equal(open_dataset(tmp_path / name), open_dataset(undisturbed / name))
    assert Store.open(fields).shards == range(1)
