"""Make data sets, solve, train, predict and evaluate for periodic microstructures."""

from __future__ import annotations

import os
import re
import sys
import warnings
from io import TextIOWrapper
from itertools import takewhile
from typing import Annotated, cast

import typer

from lspipe.cli import data as data
from lspipe.cli import images as images
from lspipe.cli import models as models
from lspipe.cli import products as products
from lspipe.cli.options import app as app
from lspipe.interrupt import Unfinished, explain, ignore_signals
from lspipe.versions import __version__


def print_version(wanted: bool) -> None:
    if wanted:
        print(f"lspipe {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=print_version, help="print the version")] = False,
) -> None:
    pass


def settle() -> None:
    """Start the command again in a clean environment, in UTF-8, where the shell's settings would disturb Python.

    Such settings are a locale of another encoding, a closed standard stream, and variables for programmers.
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONIOENCODING", "PYTHONWARNINGS")}
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        if not re.fullmatch(r"[1-9]\d{0,2}(,\d+)*", environment.get(name, "1")):
            del environment[name]  # an empty value, 0 or 100000 ends PyTorch or Numba
    closed = None in (sys.stdin, sys.stdout, sys.stderr)
    utf8 = sys.getfilesystemencoding() == "utf-8" or environment.get("PYTHONUTF8") == "1"  # python -X utf8=0 stays so
    if environment == os.environ and not closed and utf8:
        return
    while (stream := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(stream, True)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment | {"PYTHONUTF8": "1"})


RENAMED = {
    "import-checkpoint": "import-published",
    "--components": "--predict",
    "--first": "--first-image",
    "--of": "--input",
}  # commands and options of earlier versions


def main() -> None:
    if not sys.flags.ignore_environment:
        settle()
    # Threads of PyTorch that wait would occupy cores. On a busy machine that makes a training two to ten times as slow;
    # on an idle one, waiting without a core costs a tenth. The user's own value is kept.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for i, word in enumerate(takewhile(lambda word: word != "--", sys.argv[1:])):
        new = RENAMED.get(word.partition("=")[0])
        if new and (i == 0 or word.startswith("-")):
            sys.exit(f"lspipe: {word} is now called {new}")
    warnings.formatwarning = lambda message, *_: f"lspipe: {message}\n"  # one line, without the code that warns
    # Names of files may hold any bytes. Line buffering lets a full disk fail at the line that does not fit.
    cast(TextIOWrapper, sys.stdout).reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        app()
    except Unfinished as error:
        ignore_signals()
        if error.args:
            print(f"lspipe: {error}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    except Exception as error:
        if (line := explain(error)) is None:
            raise
        sys.exit(f"lspipe: {line}")
