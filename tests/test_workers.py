"""Workers: who may give them work, what they say when they are gone, and what a command starts in a job."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial

import numba
import psutil
import pytest
from conftest import BIN, run
from distributed import Client, LocalCluster, Security

from lspipe import workers
from lspipe.interrupt import Unfinished, stopping_at_once
from lspipe.progress import progress


def mark(folder, shard, report):
    """Say which process did a shard."""
    (folder / f"{shard}").write_text(str(os.getpid()))
    report(1)
    return shard


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
                    pytest.raises(OSError, match="closed|TLS certificate"),
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
