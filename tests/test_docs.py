"""The documentation is true: its Python runs, its commands and messages exist, its recipe for a network trains."""

import json
import re
import shlex
import shutil

import pandas as pd
import pytest
import typer
import yaml
from conftest import REPOSITORY, run
from snakemake.cli import get_argument_parser

from lspipe.cli import app
from lspipe.config import parse_config

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "config/README.md", *sorted(DOCS.glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


def command_lines(page):
    """(command, whether it is whole) of the shell blocks, and those named in the text, which may be parts."""
    block = "".join(blocks(page, "sh")).replace("\\\n", "").splitlines()
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    named = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]
    found = [(line, "…" not in line) for line in block] + [(line, False) for line in named]
    return [(line, whole) for line, whole in found if line.startswith(("lspipe ", "snakemake "))]


PROGRAMS = [page for page in PAGES if blocks(page, "python") and page != DOCS / "network.md"]
LINES = [pytest.param(*found, id=f"{page.name}: {found[0]}") for page in PAGES for found in command_lines(page)]


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.name)
def test_python_runs(page, pipeline, tmp_path, monkeypatch):
    """The blocks of a page are one program; results of the tiny run stand in for those of the default one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    for name in ("default", "test"):
        (tmp_path / "results" / name).symlink_to(pipeline.results)
    program = "".join(blocks(page, "python")).replace("models/rln/", "models/fln/")  # which the tiny run does not have
    exec(compile(program, page.name, "exec"), {})


@pytest.mark.parametrize(("line", "whole"), LINES)
def test_command_parses(line, whole):
    program, *words = shlex.split(re.sub(r" > .*", "", line), comments=True)
    if program == "snakemake":
        get_argument_parser().parse_args(words)
        return
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    try:
        command.make_context("lspipe", words)
    except Exception as error:  # what is missing comes last, after what is unknown
        if whole or type(error).__name__ not in ("MissingParameter", "BadOptionUsage"):
            raise


def test_configurations_are_accepted():
    whole = [block for page in PAGES for block in blocks(page, "yaml") if block.startswith("run:")]
    assert whole
    for block in whole:
        parse_config(yaml.safe_load(block))


def test_messages_are_those_of_the_code():
    files = [*(REPOSITORY / "src").rglob("*.py"), *(REPOSITORY / "workflow").rglob("*.smk")]
    source = "".join(file.read_text() for file in files)
    source = re.sub(r'"\n\s*f?"', "", source)  # messages of several lines
    headings = re.findall(r"^### (.*`.*)$", (DOCS / "troubleshooting.md").read_text(), re.M)
    messages = [message for heading in headings for message in re.findall(r"`(.*?)`", heading)]
    theirs = {"Error: Directory cannot be locked", "[Errno 28] No space left on device"}
    assert theirs < set(messages)
    for message in set(messages) - theirs:
        for part in re.split("…|; ", message):
            assert part.strip(" .,()") in source, message


def test_a_network_of_ones_own(pipeline, tmp_path):
    """docs/network.md, followed in a copy of the package."""
    page = DOCS / "network.md"
    shutil.copytree(REPOSITORY / "src", tmp_path / "src")
    (file,), (program,), (diff,) = (
        re.findall(r"^`(src/\S+)`:$", page.read_text(), re.M),
        blocks(page, "python"),
        blocks(page, "diff"),
    )
    (tmp_path / file).write_text(program)
    for name, hunks in re.findall(r"^\+\+\+ b/(\S+)\n(.*?)(?=^--- |\Z)", diff, re.S | re.M):
        source = (tmp_path / name).read_text()
        for hunk in hunks.split("@@\n")[1:]:
            old, new = ("".join(line[1:] for line in hunk.splitlines(True) if line[0] != sign) for sign in "+-")
            assert source.count(old) == 1, old
            source = source.replace(old, new)
        (tmp_path / name).write_text(source)
    (tmp_path / "results").symlink_to(pipeline.folder / "results")
    (tmp_path / "workflow/schemas").mkdir(parents=True)
    for line in "".join(blocks(page, "sh")).replace("\\\n", "").splitlines():
        run("bash", "-c", line, cwd=tmp_path, PYTHONPATH=str(tmp_path / "src"))
    assert '"dilated"' in (tmp_path / "workflow/schemas/config.schema.json").read_text()
    assert json.loads((tmp_path / "models/dilated/model.json").read_text())["architecture"] == "dilated"
    assert pd.read_parquet(tmp_path / "errors.parquet")["mase"].between(0, 200).all()
