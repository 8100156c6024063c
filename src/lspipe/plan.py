"""The plan of a run: its predictors, its files, and the resources that its jobs request from a cluster.

The rules of the workflow read everything from a ``Plan``. Nothing here needs Snakemake.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lspipe.cell.inelastic import elastic_part
from lspipe.cell.kinds import read_material, write_material
from lspipe.cell.material import Isotropic
from lspipe.config import BASELINE, Config
from lspipe.files import read_json
from lspipe.images import Images, format_options, read_images
from lspipe.interrupt import explain
from lspipe.measure import choose_shown
from lspipe.models.description import Description, check_start
from lspipe.models.shipped import find_model
from lspipe.report_figures import FIGURES, FIRST_PAGE
from lspipe.sections import NetworkConfig


@dataclass(frozen=True)
class Predictor:
    """The solver stopped early, a network with its training seed, or a published network, which has no seed."""

    folder: str  # below models/ and evaluation/
    label: str  # in figures
    network: NetworkConfig | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """Name in the table, where the training seeds of a network share a row."""
        return self.network.name if self.network else BASELINE

    @property
    def is_solver(self) -> bool:
        """Whether predicting runs the solver, which takes less memory than the networks of the paper."""
        return self.network is None or self.network.architecture == "rln-cg"


@dataclass(frozen=True)
class Plan:
    """Everything that the workflow makes for a configuration. Files are named as the rules name them."""

    config: Config

    @cached_property
    def predictors(self) -> dict[str, Predictor]:
        """All predictors by folder, the solver first."""
        predictors, seeds = [Predictor(BASELINE, BASELINE)], self.config.training.seeds
        for network in self.config.networks:
            name = network.name
            if network.published:
                predictors.append(Predictor(f"{name}/imported", name, network))
                continue
            for seed in seeds:
                label = name if len(seeds) == 1 else f"{name} seed {seed}"
                predictors.append(Predictor(f"{name}/seed{seed}", label, network, seed))
        return {predictor.folder: predictor for predictor in predictors}

    @property
    def networks(self) -> list[Predictor]:
        """All predictors but the solver."""
        return [*self.predictors.values()][1:]

    def networks_of(self, case: str, trained: bool = False) -> list[Predictor]:
        """Return the networks that learn a case or have learned it; with ``trained``, those that this run trains."""
        networks = [p for p in self.networks if p.network and case in self.config.problems_of(p.network)]
        return [p for p in networks if p.seed is not None] if trained else networks

    def evaluated(self, case: str) -> list[Predictor]:
        """Return the predictors that are evaluated on a case."""
        return [self.predictors[BASELINE], *self.networks_of(case)]

    def shown(self, figure: str, case: str, predictor: str = "", **_: str) -> list[Predictor]:
        """Return the predictors that a figure shows, from the wildcards of its file."""
        match FIGURES[figure].shows:
            case "one network":
                return [self.predictors[predictor]]
            case "solver":
                return [self.predictors[BASELINE]]
            case "trained":
                return self.networks_of(case, trained=True)
        return self.evaluated(case)

    @property
    def first_case(self) -> str:
        """The first case with a network, or the first one: the first page of the report shows its figures."""
        return next((c for c in self.config.problems if self.networks_of(c)), next(iter(self.config.problems)))

    def component(self, case: str) -> str:
        """Return the component of the strain that figures of a case show."""
        physics, problem = self.config.physics, self.config.problems[case]
        return f"{physics.symbol}_{physics.components[choose_shown(problem)]}"

    @property
    def legend(self) -> str:
        """The meaning of the colours in pictures of microstructures."""
        if self.images.crystals if self.images else self.config.has_grains:
            return "a colour for each grain"
        is_pair = all(len(problem.materials) == 2 for problem in self.config.problems.values())
        return "dark: phase 1" if is_pair else "a shade for each phase"

    # Files

    @property
    def results(self) -> str:
        return f"results/{self.config.run}"

    def stores(self, case: str, split: str) -> list[str]:
        """Return the stores of the microstructures and the fields of a split."""
        fields = f"{self.results}/fields/{self.config.fields_of(case)}/{split}.zarr/zarr.json"
        return [f"{self.results}/microstructures/{split}.zarr/zarr.json", fields]

    def receipts(self, case: str, split: str, shards: Sequence[int]) -> list[str]:
        fields = self.config.fields_of(case)
        return [f"{self.results}/fields/{fields}/{split}.receipts/{k}.json" for k in shards]

    def strain(self, case: str, split: str, shards: Sequence[int], is_path: bool = False) -> list[str]:
        """Return the files of the strain of some shards. The smaller files of a shard come and go with this one."""
        fields, dims = self.config.fields_of(case), "/0" * (5 if is_path or case in self.config.paths else 4)
        return [f"{self.results}/fields/{fields}/{split}.zarr/strain/c/{k}{dims}" for k in shards]

    @property
    def data(self) -> list[str]:
        """The receipt and the strain of every shard. A run requests them all, to notice when one is lost."""
        files = []
        learned = {
            (self.config.fields_of(case), split)
            for case in self.config.problems
            for learner in self.networks_of(case, trained=True)
            if learner.network
            for split in self.config.learned_splits(learner.network)
        }
        for case in self.config.loaded:
            for split in self.config.counts:
                if split != "test" and (case, split) not in learned:
                    continue
                shards = self.config.shards_of(split)
                files += self.receipts(case, split, shards) + self.strain(case, split, shards)
        return files

    def solved_lists(self, cases: Sequence[str], *splits: str) -> list[str]:
        """Return the files that exist once all fields of some splits are solved."""
        fields = dict.fromkeys(map(self.config.fields_of, cases))
        return [f"{self.results}/fields/{name}/{split}.receipts/all.jsonl" for name in fields for split in splits]

    def training_stores(self, network: NetworkConfig) -> tuple[list[str], list[str]]:
        """Return the stores that a network trains on and is validated on, one pair after the other."""
        fields = dict.fromkeys(map(self.config.fields_of, self.config.problems_of(network)))
        splits = self.config.learned_splits(network)
        train, valid = ([file for name in fields for file in self.stores(name, split)] for split in splits)
        return train, valid

    def model(self, predictor: str) -> list[str]:
        """Return the files of a network; none for the solver."""
        names = () if predictor == BASELINE else ("model.json", "model.safetensors")
        return [f"{self.results}/models/{predictor}/{name}" for name in names]

    def start(self, predictor: str) -> list[str]:
        """Return the files of the network of this run, with the same seed, that a training starts from, if any."""
        learner = self.predictors[predictor]
        start = learner.network and self.config.start_of(learner.network)
        folders = [p.folder for p in self.networks if p.network == start and p.seed in (None, learner.seed)]
        return self.model(folders[0]) if start else []

    def source(self, kind: str, predictor: Predictor, case: str) -> str:
        """Return the file of a predictor that figures are drawn from: its metrics, errors or examples."""
        if kind == "metrics":
            return f"{self.results}/models/{predictor.folder}/metrics.csv"
        if kind == "effective":
            return self.effective(case)
        if kind == "curves":
            return f"{self.results}/curves/{case}.csv"
        if kind == "paths":
            return self.stores(case, "test")[1]
        suffix = ".parquet" if kind == "errors" else ".zarr/zarr.json"
        return f"{self.results}/evaluation/{predictor.folder}/{case}{suffix}"

    def effective(self, case: str) -> str:
        """Return the table of effective properties of a case, which all its loads share."""
        return f"{self.results}/effective/{case.partition('/')[0]}.csv"

    @property
    def table(self) -> dict[str, tuple[str, str]]:
        """The case and the name that the table shows for each file of errors."""
        cases = self.config.problems
        return {self.source("errors", p, case): (case, p.name) for case in cases for p in self.evaluated(case)}

    @property
    def figures(self) -> list[str]:
        """The figures of the report."""
        names = [f"{name}/{FIGURES[name].target.format(**w)}" for name in FIGURES for w in self.wildcards(name)]
        return [f"{self.results}/figures/{name}.png" for name in names]

    @cached_property
    def pages(self) -> dict[str, list[str]]:
        """The figures that each rule draws. A figure that some case of its page lacks has its own rule."""
        pages: dict[str, list[str]] = {}
        for page in dict.fromkeys(figure.page for figure in FIGURES.values()):
            drawn = {name: w for name, figure in FIGURES.items() if figure.page == page and (w := self.wildcards(name))}
            most = max(drawn.values(), key=len, default=[])
            for name, wildcards in drawn.items():
                pages.setdefault(page if wildcards == most else name, []).append(name)
        return pages

    def wildcards(self, name: str) -> list[dict[str, str]]:
        """Return the wildcards of the files of a figure: each case, or network and case, that it is drawn for."""
        figure, found = FIGURES[name], []
        if figure.category == "Load paths":
            return [{"case": path} for path in self.config.paths]
        for case, problem in self.config.problems.items():
            if name == "trends" and len(problem.materials) == 1:
                continue  # There is no volume fraction to vary.
            if name == "effective_errors" and case in self.config.kept:
                continue  # The predicted strain alone does not give the stress.
            shown_of = self.networks_of(case, trained=figure.shows == "trained")
            if not self.networks and (figure.shows == "solver" or name in FIRST_PAGE):
                shown_of = [self.predictors[BASELINE]]
            for predictor in shown_of:
                shown = {"case": case.partition("/")[0] if figure.source == "effective" else case}
                if figure.shows == "one network":
                    shown["predictor"] = predictor.folder
                if shown not in found:
                    found.append(shown)
        return found

    def find_sources(self, figures: Sequence[str], case: str, predictor: str = "", **_: str) -> list[tuple[str, str]]:
        """Return the label and the file of each input of some figures, from the wildcards of their files."""
        sources = [(FIGURES[name].source, p) for name in figures for p in self.shown(name, case, predictor)]
        return list(dict.fromkeys((p.label, self.source(kind, p, case)) for kind, p in sources))

    # Options of commands

    def microstructures(self, split: str) -> dict[str, Any]:
        """Return the options of `lspipe generate`, or of `lspipe import` where the configuration names images."""
        cells = self.config.microstructures
        source: dict[str, Any] = {"n": [cells.grid_of(split)], "seed": self.config.seed}
        if cells.generator != {"kind": "gaussian"}:
            source["generator"] = json.dumps(cells.generator, sort_keys=True)
        if cells.images:
            source = {} if cells.images.blocks else {"first_image": self.config.first_image(split)}
            if apart_from := self.earlier_splits(split):
                source["apart_from"] = [f"{self.results}/microstructures/{s}.zarr" for s in apart_from]
            if cells.labels:
                source["labels"] = [cells.labels]
        if cells.spacing:
            source["spacing"] = [cells.spacing]
        per_shard = self.config.jobs.samples_per_shard
        seeds = {"split": split.removeprefix("small_"), "samples_per_shard": per_shard}
        return {"count": self.config.counts[split], **source, **seeds}

    @property
    def cut(self) -> list[str]:
        """Return the words of the options with which `lspipe import` reads images."""
        images = self.config.microstructures.images
        return format_options(images.options) if images else []

    @property
    def image_files(self) -> list[str]:
        """Return the files, or folders of slices, that `lspipe import` reads."""
        images = self.config.microstructures.images
        return [os.fspath(file) for file in images.files] if images else []

    def earlier_splits(self, split: str) -> list[str]:
        """Return the splits from which blocks of a split must keep apart; none where images are not cut into blocks."""
        images, order = self.config.microstructures.images, ["test", "valid", "train"]
        return order[: order.index(split)] if images and images.blocks else []

    def check_starts(self) -> None:
        """Raise ValueError where the weights of a model that is not of this run do not fit the network they start."""
        for i, network in enumerate(self.config.networks):
            if not network.start or self.config.start_of(network):
                continue
            try:
                file = find_model(os.fsdecode(network.start.encode())) / "model.json"
                check_start(repr(network.start), read_json(file, Description), self.config.describe(network))
            except (ValueError, OSError) as error:
                raise ValueError(f"config: networks.{i}.start = {explain(error)}") from None

    def published(self, network: NetworkConfig) -> dict[str, Any]:
        """Return the options of `lspipe import-published`. The file of a published network does not state them."""
        (name,) = self.config.problems_of(network)
        soft, stiff = self.config.problems[name].materials
        assert isinstance(soft, Isotropic)
        assert isinstance(stiff, Isotropic)
        moduli = {"contrast": stiff.young / soft.young, "young": soft.young, "poisson": soft.poisson}
        return {**moduli, "architecture": network.architecture}

    def problem(self, case: str) -> dict[str, Any]:
        """Return the options of `lspipe allocate`."""
        truth = self.config.truth.get(case, [])
        options: dict[str, Any] = {
            "truth": [os.fsdecode(name.encode()) for name in truth],
            "material": self.materials(case.partition("/")[0]),
        }
        if case in self.config.paths:
            load = self.config.loads[self.config.loaded[case][1]]
            options["load"] = json.dumps(load.model_dump(exclude_defaults=True), sort_keys=True)
        else:
            problem = self.config.problems[case]
            options["strain"] = [problem.strain]
            if problem.stress:
                options["stress"] = [problem.stress]
            if problem.temperature:
                options["temperature"] = problem.temperature
        per_shard = self.config.jobs.samples_per_shard
        return {**options, **self.config.solver.model_dump(), "samples_per_shard": per_shard}

    def homogenization(self, case: str) -> dict[str, Any]:
        """Return the options of `lspipe homogenize`. Elastic parts stand in for inelastic materials."""
        options = {"scheme": self.config.solver.scheme, "tol": self.config.homogenization.tol}
        materials = []
        for text, material in zip(self.materials(case), map(read_material, self.config.cases[case]), strict=True):
            is_linear = (elastic := elastic_part(material)) is material
            materials.append(text if is_linear else json.dumps(write_material(elastic), sort_keys=True))
        return {"material": materials, **options, "samples_per_shard": self.config.jobs.samples_per_shard}

    def materials(self, case: str) -> list[str]:
        """Return the materials of a case as options of commands."""
        return [json.dumps(values, sort_keys=True) for values in self.config.cases[case]]

    # Resources that jobs request. Memory is in MB; docs/data.md explains the numbers.

    def voxels(self, split: str = "test") -> int:
        """Return the voxels of a microstructure."""
        if self.config.microstructures.images:
            return math.prod(self.images.shape) if self.images else 64**3
        return math.prod(self.config.microstructures.grid_of(split))

    @cached_property
    def images(self) -> Images | None:
        """The images of the configuration; None if there are none, or if the job that imports them will report why."""
        try:
            images = self.config.microstructures.images
            return read_images(images.files, **images.options) if images else None
        except Exception:
            return None

    def training_threads(self, cores: int | None) -> int:
        """Return the threads of each training: networks trained side by side use the cores better."""
        trainings = sum(p.seed is not None for p in self.networks) or 1
        return max(1, (cores or 8 * trainings) // trainings)

    def solver_memory(self, threads: int, split: str = "test") -> float:
        """Return the memory of a job that solves. Each thread is a process that holds a shard.

        A shard of load paths has 13 numbers for each voxel and kept step.
        """
        loads = [self.config.loads[load] for _, load in self.config.loaded.values()]
        numbers = max(3.0, *(13 / 3 * len(load.divide()[1]) for load in loads if load.steps), 0.0)
        samples = numbers * self.config.jobs.samples_per_shard
        return 500 + threads * (300 + 24e-6 * self.voxels(split) * (samples + 140))

    def evaluation_memory(self, predictor: str, threads: int) -> float:
        """Return the memory of an evaluation. A network predicts a batch, the solver one microstructure a thread."""
        is_solver = self.predictors[predictor].is_solver
        kilobytes = (3.3 if self.config.paths else 1.1) if is_solver else 2.4
        return 700 + max(2**19, self.voxels() * (threads if is_solver else 1)) * 1e-3 * kilobytes

    def training_memory(self, network: NetworkConfig) -> float:
        """Return the memory of a training. The layers keep the values of a batch.

        The training set takes less than a quarter of this memory, so that it is loaded whole.
        """
        split, _ = self.config.learned_splits(network)
        voxels, samples = self.voxels(split), self.config.counts[split] * len(self.config.problems_of(network))
        kilobytes = 30 if network.architecture == "ifno" else 13  # for each voxel; IFNO differentiates all passes
        batch = 1e-3 * kilobytes * self.config.training.batch * voxels
        # A voxel takes 4 bytes for each component, and 2 for its phase or grain.
        bytes_per_voxel = 2 + 4 * len(self.config.components_of(network))
        return 4000 + batch + 4e-6 * samples * voxels * bytes_per_voxel


def words(**options: Any) -> list[str]:
    """Return the words of the options of an `lspipe` command.

    A list is an option given several times; each entry is text, or a list of words that are joined by commas.
    """
    result = []
    for name, value in options.items():
        for entry in value if isinstance(value, list) else [value]:
            text = join(entry) if isinstance(entry, list | tuple) else str(entry)
            result += [f"--{name.replace('_', '-')}", text]
    return result


def join(entries: Sequence[Any]) -> str:
    """Join words by commas; a word that holds a comma is quoted as in a CSV file."""
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(entries)
    return row.getvalue()
