"""The tiny configuration, run once through the real workflow and shared by the tests that look at it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def run(*command, cwd, check=True, **environment):
    """A command as a user types it, with the commands of this Python's environment first on the path."""
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | environment
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, text=True, capture_output=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


class Run(NamedTuple):
    folder: Path
    results: Path
    output: str

    def snakemake(self, *arguments, check=True):
        config = REPOSITORY / "config/test.yaml"
        where = ("--snakefile", REPOSITORY / "Snakefile", "--configfile", config)
        return run("snakemake", *where, *arguments, cwd=self.folder, check=check)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """A finished run of config/test.yaml in a folder of its own."""
    folder = tmp_path_factory.mktemp("pipeline")
    fresh = Run(folder, folder / "results/test", "")
    done = fresh.snakemake("--cores", 2)
    return fresh._replace(output=done.stdout + done.stderr)
