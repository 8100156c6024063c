"""The documentation is true: its Python runs, its commands and messages exist."""

import re
import shlex

import pytest
import typer
import yaml
from conftest import REPOSITORY
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
