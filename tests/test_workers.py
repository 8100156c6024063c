"""Workers: who may give them work, what happens when they or their command are stopped, and what scripts may do."""

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numba
import numpy as np
import psutil
import pytest
from conftest import BIN, run
from distributed import Client, LocalCluster, Security

from lspipe import Isotropic, workers
from lspipe.cell.problem import Problem
from lspipe.dataset import create_fields, solve_fields, write_microstructures
from lspipe.progress import progress
from lspipe.verify import verify

MATERIALS = [Isotropic(120, 0.3), Isotropic(6000, 0.3)]


def mark(folder, shard, report):
    """Say which process did a shard."""
    (folder / f"{shard}").write_text(str(os.getpid()))
    report(1)
    return shard


def exhaust(shard, report):
    np.empty(2**50)


def die(shard, report):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def stores(tmp_path):
    """Microstructures of 16 shards, and room for their fields."""
    cells, fields = tmp_path / "cells.zarr", tmp_path / "fields.zarr"
    write_microstructures(cells, count=64, n=20, seed=0, split="train", per_shard=4)
    create_fields(fields, cells, Problem(MATERIALS, [1e-3, 0, 0, 0, 0, 0]), tol=1e-9, per_shard=4)
    return cells, fields


def test_one_worker_is_this_process_and_starts_no_other(tmp_path):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    ports = listening(psutil.Process())
    bar = progress("mark", 2, "shard")
    assert workers.run(partial(mark, tmp_path), [4, 2], bar, workers=1, scheduler=None) == [4, 2]
    assert bar.n == 2
    assert {file.read_text() for file in tmp_path.iterdir()} == {str(os.getpid())}
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before
    assert listening(psutil.Process()) == ports


def listening(*processes):
    return {c.laddr.port for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}


def test_only_who_has_the_credentials_can_run_code(tmp_path):
    """A Dask scheduler, its nannies and its workers run whatever a process sends that can connect to them."""
    here = psutil.Process()
    before = listening(here)
    with workers.connect(2, None) as client:
        assert client.submit(os.getpid).result() != os.getpid()
        ports = listening(here, *here.children(recursive=True)) - before
        assert len(ports) >= 5  # the scheduler, and for each worker itself and its nanny; some speak HTTP
        for port in ports:
            if answer(port, "/").startswith(b"HTTP"):
                pages = "/info/main/workers.html", "/metrics", "/json/identity.json", "/api/v1/retire_workers"
                assert {answer(port, page)[:12] for page in pages} == {b"HTTP/1.1 404"}
                continue
            for scheme, security in ("tcp", Security()), ("tls", Security.temporary()):
                with (
                    pytest.raises(OSError),  # noqa: PT011  # refused, closed or silent until the timeout: all are kept out
                    Client(f"{scheme}://127.0.0.1:{port}", security=security, timeout=5) as stranger,
                ):
                    stranger.submit((tmp_path / "pwned").touch).result()
    assert not list(tmp_path.iterdir())


def answer(port, page):
    """What a port says to a browser."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"GET {page} HTTP/1.0\r\n\r\n".encode())
        try:
            return connection.recv(1000)
        except ConnectionError:
            return b""


def test_a_task_without_memory_ends_the_job_in_one_line():
    with pytest.raises(MemoryError, match="Unable to allocate"):
        workers.run(exhaust, [0], progress("exhaust", 1, "shard"), workers=2, scheduler=None)


@pytest.mark.parametrize("started", [0, 1])
def test_a_cluster_that_has_lost_its_workers_is_given_up(started, monkeypatch, capsys):
    """It has none from the beginning, or the only one dies at its first task."""
    monkeypatch.setattr(workers, "LOOK", 1)
    monkeypatch.setattr(workers, "PATIENCE", 2)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        command = [BIN / "dask", "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        alone = [subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) for _ in range(started)]
        if started:
            with Client(address) as client:
                client.wait_for_workers(started)
        with pytest.raises(ValueError, match=f"^scheduler = {address}: had no worker for 2 s"):
            workers.run(die, [0, 1], progress("die", 2, "shard"), workers=1, scheduler=address)
        assert [worker.wait() for worker in alone] == [-signal.SIGKILL] * started
    assert f"scheduler = {address}: has had no worker for 1 s of 2 s" in capsys.readouterr().err


def test_a_scheduler_that_cannot_be_reached_is_named():
    with pytest.raises(ValueError, match=r"^scheduler = nowhere: missing port number"):
        workers.run(die, [0], progress("die", 1, "shard"), workers=1, scheduler="nowhere")


def lives(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(("count", "number"), [(1, signal.SIGTERM), (2, signal.SIGTERM), (2, signal.SIGINT)])
def test_a_signal_ends_a_command_in_one_line(stores, count, number):
    """A terminal and a batch system send it to the command and to all its workers."""
    cells, fields = stores
    process = subprocess.Popen(
        [BIN / "lspipe", "solve", cells, fields, "--workers", str(count)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    receipts = fields.with_suffix(".receipts")
    while len(list(receipts.glob("[0-9]*.json"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(started) == (0 if count == 1 else 2 + count)  # the fork server and the tracker of its semaphores
    os.killpg(process.pid, number)
    _, said = process.communicate()
    assert process.returncode == 75
    lines = [line for line in said.splitlines() if not line.startswith("solve ")]
    assert lines == [f"lspipe: {fields}: stopped; the shards that are done are saved, and the same command continues"]
    until = time.monotonic() + 60
    while any(map(lives, started)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(lives, started)), "processes outlived the command"
    done = {int(receipt.stem) for receipt in receipts.glob("[0-9]*.json")}
    assert 2 <= len(done) < 16
    assert set(verify(fields, again=0).broken) == set(range(16)) - done


SCRIPT = """
from pathlib import Path
from lspipe.dataset import solve_fields
print("the script runs")
print(len(solve_fields(Path("fields.zarr"), Path("cells.zarr"), range(2), workers=2)))
print(Path(__file__).name, __spec__)
"""


def test_a_script_needs_no_guard(stores):
    folder = stores[0].parent
    (folder / "script.py").write_text(SCRIPT)
    done = run(sys.executable, "script.py", cwd=folder)
    assert done.stdout.splitlines() == ["the script runs", "2", "script.py None"]
    assert all(line.startswith("solve ") for line in done.stderr.splitlines())


def test_solving_with_one_worker_leaves_the_threads_of_the_caller_as_they_are(stores):
    cells, fields = stores
    before = numba.get_num_threads()
    solve_fields(fields, cells, [0])
    assert numba.get_num_threads() == before
