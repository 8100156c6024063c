"""The files of the project agree with each other."""

import re
import shutil
import tomllib

import yaml
from breakages import TABLE, broken_source
from conftest import REPOSITORY, run

CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base", "snakemake": "snakemake-minimal"}

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]


def test_conda_environment_has_the_packages_and_bounds_of_the_project():
    wanted = {f"python{PROJECT['requires-python']}", "pip"}
    for requirement in PROJECT["dependencies"]:
        name, bound = re.fullmatch(r"([\w-]+)(>=[\d.]+)", requirement).groups()
        wanted.add(CONDA.get(name, name) + bound)
    assert {package for package in ENVIRONMENT if isinstance(package, str)} == wanted


def test_conda_environment_leaves_no_package_to_pip():
    assert ENVIRONMENT[-1] == {"pip": ["--no-deps --editable ."]}


def test_each_breakage_still_has_its_line():
    for row in TABLE:
        broken_source(row)


def test_make_run_in_a_folder_and_with_a_configuration_of_any_name(tmp_path):
    folder = tmp_path / 'it\'s an odd $(touch pwned) `touch pwned` "folder"'
    (folder / ".venv/bin").mkdir(parents=True)
    shutil.copy(REPOSITORY / "Makefile", folder)
    for name in ("pyproject.toml", "constraints.txt", ".venv/installed"):  # the last one is the newest
        (folder / name).touch()
    command = folder / ".venv/bin/snakemake"
    command.write_text('#!/bin/sh\nprintf \'%s\\0\' "$@" "$(command -v snakemake)" > words\n')
    command.chmod(0o755)
    config = "my config's $$(touch pwned).yaml"  # $$ is a dollar sign for make
    run("make", "run", f"CONFIG={config}", "CORES=3", cwd=folder)
    expected = ["--cores", "3", "--configfile", config.replace("$$", "$"), str(command), ""]
    assert (folder / "words").read_text().split("\0") == expected
    assert not list(tmp_path.glob("**/*pwned"))
