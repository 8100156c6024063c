"""The files of the project agree with each other."""

import re
import tomllib

import yaml
from breakages import TABLE, broken_source
from conftest import REPOSITORY

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
