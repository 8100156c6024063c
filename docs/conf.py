"""Settings of Sphinx for `make docs`. The pages on configuration and commands are generated from the code."""

import re

import typer
from typer.cli import get_docs_for_click

import lspipe
from lspipe.cli import app
from lspipe.read_config import reference

project, author, release = "lspipe", "The lspipe developers", lspipe.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]  # napoleon: Args, Returns, Raises
napoleon_use_ivar, napoleon_attr_annotations = True, False
exclude_patterns = ["_build"]
myst_heading_anchors = 3
nitpicky = True  # A reference to a name of this project must exist; other packages have no page here.
nitpick_ignore_regex = [("py:.*", r"(?!lspipe).*")]
autodoc_member_order = "bysource"
autodoc_type_aliases = {name: name for name in ("Array", "ArrayLike", "Material", "Model", "Start")}
smartquotes = False
html_theme = "furo"
html_title = f"lspipe {release}"
html_show_sphinx = html_copy_source = False


def commands() -> str:
    """Return the `--help` text of every command."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="lspipe"), name="lspipe")
    return re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+", "", text[text.index("## ") :])


GENERATED = {"configuration": reference, "commands": commands}


def generate(app, name, source):
    if name in GENERATED:
        source[0] = source[0].replace("<!-- generated -->", GENERATED[name]())
    source[0] = source[0].replace("../benchmarks/README.md", "benchmarks.md")  # this page includes it


def plain(app, what, name, obj, options, signature, returned):
    """Replace type aliases by their names."""
    if signature:
        return tuple(re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text or "") for text in (signature, returned))
    return None


def setup(app):
    app.connect("source-read", generate)
    app.connect("autodoc-process-signature", plain)
