"""The documentation is true: its Python runs, its commands and messages exist, and its numbers are those of a run."""

import re
import shlex

import pandas as pd
import pytest
import typer
import yaml
from conftest import REPOSITORY
from safetensors.torch import load_file

from lspipe.cli import app
from lspipe.read_config import parse_config
from lspipe.report_figures import FIGURES

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("[bcr]*/README.md")), *sorted(DOCS.glob("*.md"))]
CARDS = sorted(REPOSITORY.glob("src/lspipe/models/weights/*/README.md"))
WIDTH = 88  # of a code block that a page shows without scrolling


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


def command_lines(page):
    """(command, whether it is complete) of the shell blocks and of the text, which may name a part of a command."""
    block = "".join(blocks(page, "sh")).replace("\\\n", "").splitlines()
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    named = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]
    lines = [(line, "…" not in line) for line in block] + [(line, False) for line in named]
    return [(line, complete) for line, complete in lines if line.startswith(("lspipe ", "snakemake "))]


# Other tests run the Python of these pages.
ELSEWHERE = {DOCS / "data.md", DOCS / "network.md", DOCS / "physics.md", DOCS / "polycrystal.md"}
PROGRAMS = [page for page in PAGES if blocks(page, "python") and page not in ELSEWHERE]
LINES = [pytest.param(*line, id=f"{page.name}: {line[0]}") for page in PAGES for line in command_lines(page)]


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.name)
def test_python_runs_and_prints_what_its_comments_say(page, pipeline, tmp_path, monkeypatch, capsys):
    """The blocks of a page are one program; results of the tiny run stand in for those of the default one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    for name in ("default", "test"):
        (tmp_path / "results" / name).symlink_to(pipeline.results)
    program = "".join(blocks(page, "python"))
    exec(compile(program, page.name, "exec"), {})
    values = re.findall(r"^print\(.*\)  # (\(.*\))$", program, re.M)
    assert set(values) <= set(capsys.readouterr().out.splitlines())
    assert values or page.name != "tutorial.md"


@pytest.mark.parametrize(("line", "complete"), LINES)
def test_command_parses(line, complete):
    program, *words = shlex.split(re.sub(r" > .*", "", line), comments=True)
    if program == "snakemake":
        from snakemake.cli import get_argument_parser  # The import takes seconds.

        get_argument_parser().parse_args(words)
        return
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    try:
        command.make_context("lspipe", words)
    except Exception as error:  # what is missing comes last, after what is unknown
        if complete or type(error).__name__ not in ("MissingParameter", "BadOptionUsage"):
            raise


def test_configurations_are_accepted():
    configurations = [block for page in PAGES for block in blocks(page, "yaml") if block.startswith("run:")]
    assert configurations
    for block in configurations:
        parse_config(yaml.safe_load(block))


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_code_blocks_fit_the_page(page):
    lines = "".join(re.findall(r"^```\S*\n(.*?)^```", page.read_text(), re.S | re.M)).splitlines()
    assert not [line for line in lines if len(line) > WIDTH]


def test_messages_are_those_of_the_code():
    files = [*(REPOSITORY / "src").rglob("*.py"), *(REPOSITORY / "workflow").rglob("*.smk")]
    source = "".join(file.read_text() for file in files)
    source = re.sub(r'"\n\s*f?"', "", source)  # messages of several lines
    headings = re.findall(r"^### (.*`.*)$", (DOCS / "troubleshooting.md").read_text(), re.M)
    messages = [message for heading in headings for message in re.findall(r"`(.*?)`", heading)]
    theirs = {"Error: Directory cannot be locked", "MissingInputException in rule …", "no space left on device"}
    assert theirs < set(messages)
    for message in set(messages) - theirs:
        for part in re.split("…|; ", message):
            assert part.strip(" .,()") in source, message


def test_the_tutorial_shows_the_output_of_the_run(pipeline):
    (shown,) = blocks(DOCS / "tutorial.md", "text")
    assert shown.splitlines()
    for line in shown.splitlines():
        assert line in pipeline.output


def test_the_page_of_results_names_every_column_and_figure(pipeline):
    words = {*re.findall(r"[a-z_0-9]+", (REPOSITORY / "results/README.md").read_text())}
    tables = [pd.read_csv(pipeline.results / "tables/mase.csv")]
    tables += map(pd.read_parquet, pipeline.results.glob("evaluation/**/*.parquet"))
    columns = {column for table in tables for column in table.columns}
    assert not {*columns, *FIGURES, *(path.name for path in pipeline.results.iterdir() if path.is_dir())} - words


def test_the_readme_describes_the_default_run():
    readme = (REPOSITORY / "README.md").read_text()
    config = parse_config(yaml.safe_load((REPOSITORY / "config/config.yaml").read_text()))
    cells, text = config.microstructures, " ".join(readme.split())
    assert f"on {cells.train} microstructures of {cells.n[0]}³ voxels" in text
    assert f"on {cells.test} unseen microstructures" in text
    predictors = re.findall(r"^\| (\S+) \| \d+ \|", readme, re.M)
    assert set(predictors) == {"cg", *(network.name for network in config.networks)}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_a_card_describes_its_weights(card):
    text = " ".join(card.read_text().split())
    stated = yaml.safe_load(card.with_name("model.json").read_text())
    recipe = "{epochs} epochs, batch {batch}, learning rate {learning_rate:g}".format(**stated["training"])
    assert recipe.replace("1 epochs", "1 epoch") in text
    assert f"; {stated['seconds'] / 60:.0f} minutes on" in text
    weights = load_file(card.with_name("model.safetensors"))
    assert f"{sum(weight.numel() for weight in weights.values()):,} parameters" in text
