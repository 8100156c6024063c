"""The tiny configuration, run once through the real workflow and shared by the tests that look at it."""

import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner

from lspipe import Isotropic, solve
from lspipe.cli import app, main
from lspipe.interrupt import SIGNALS

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in `lspipe`: the processes of the tests share the cores

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def environment(**changes):
    """With the commands of this Python's environment first on the path."""
    return os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | changes


def run(*command, cwd, check=True, **changes):
    """A command as a user types it."""
    options = {"cwd": cwd, "env": environment(**changes), "text": True, "errors": "replace", "capture_output": True}
    done = subprocess.run(list(map(str, command)), **options, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@contextmanager
def as_before():
    """Restore the handlers of signals: a command that is not finished ends with signals ignored."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def call(*words, cwd, check=True):
    """What `run("lspipe", *words)` returns, by `lspipe` in this process: to start one takes seconds."""
    output, errors, code = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO(), 0
    with as_before(), pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["lspipe", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    output.seek(0)
    if isinstance(code, str):
        errors.write(f"{code}\n")
        code = 1
    done = subprocess.CompletedProcess(words, code, output.read(), errors.getvalue())
    assert not check or code == 0, done.stdout + done.stderr
    return done


def invoke(*words):
    """Run a subcommand in this process and return what it prints. Its exception is raised."""
    result = CliRunner().invoke(app, list(map(str, words)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def perform(plan):
    """Run the shell lines that `snakemake -n -p` lists, each `lspipe` in this process: to start one takes seconds."""
    for line in re.findall("^Shell command: (.*)", plan, re.M):
        for file in re.findall(r"results/[^\s,]+", line):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        if command := re.match(r"(?:\$\(test 1 .*?\) )?lspipe (.*?) 2>&1 ", line):
            invoke(*shlex.split(command[1]))
        else:
            subprocess.run(["bash", "-c", line], check=True)


def assert_complete(report, figures):
    """Assert that a report of the run `test` is whole, opens offline and shows some figures."""
    report = report.read_text(encoding="utf-8")
    assert report.rstrip().endswith("</html>")
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]+', report)
    for name in ("config.yaml", "tables/mase.html", *(f"figures/{figure}.png" for figure in figures)):
        assert f"results/test/{name}" in report
    for category in ("Results", "Fields", "Configuration"):
        assert f'"{category}"' in report
    assert "<h2>Run test</h2>" in report.replace("\\u003c", "<").replace("\\u003e", ">")  # of the first page


class Run(NamedTuple):
    folder: Path
    results: Path
    output: str

    def command(self, *arguments):
        where = ("--snakefile", REPOSITORY / "Snakefile", "--configfile", REPOSITORY / "config/test.yaml")
        return list(map(str, ("snakemake", *where, *arguments)))

    def snakemake(self, *arguments, check=True):
        return run(*self.command(*arguments), cwd=self.folder, check=check)


LONGEST = ("slurm", "pipeline", "fuzz", "workflow_plan", "tiny_runs", "faults", "train", "images")


def pytest_collection_modifyitems(items):
    """The files that take longest begin first, so that no process waits for another at the end."""
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """The folder that all processes of the tests share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def compiled(shared):
    """Compile the kernels of the solver once. Otherwise jobs that begin side by side would each compile them."""
    with FileLock(shared / "kernels.lock"):
        solve(np.arange(8**3).reshape(8, 8, 8) % 2, [Isotropic(1, 0.3), Isotropic(10, 0.3)], [1e-3, 0, 0, 0, 0, 0])


@pytest.fixture(scope="session")
def pipeline(shared, compiled):
    """A finished run of config/test.yaml, which all processes of the tests share: tests change copies of it."""
    folder, output = shared / "pipeline", shared / "pipeline.out"
    fresh = Run(folder, folder / "results/test", "")
    with FileLock(shared / "pipeline.lock"):
        if not output.exists():
            shutil.rmtree(folder, ignore_errors=True)  # another process has failed
            folder.mkdir()
            done = fresh.snakemake("--cores", 2)
            output.write_text(done.stdout + done.stderr, "utf-8")
    return fresh._replace(output=output.read_text("utf-8"))
