"""The figures of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """Category and content in the report, the kind of file that it is drawn from, and the predictors that it shows."""

    category: str
    content: str
    source: Literal["metrics", "errors", "examples", "effective", "curves", "paths"]
    shows: Literal["all", "trained", "solver", "one network"] = "all"

    @property
    def target(self) -> str:
        """Name of its file below figures/, without suffix."""
        return "{predictor}/{case}" if self.shows == "one network" else "{case}"

    @property
    def page(self) -> str:
        """The name of the rule that draws it. A process draws all figures of a page: starting one takes seconds."""
        if self.shows == "one network":
            return "network_figures"
        if self.category == "Load paths":
            return "path_figures"
        return "effective" if self.source == "effective" else "case_figures"

    @property
    def network(self) -> str:
        """Its label in the report: the network that it shows, or all."""
        return "{predictor}" if self.shows == "one network" else "all"


FIGURES = {
    "learning_curves": Figure("Training", "learning curves", "metrics", "trained"),
    "mase": Figure("Results", "distribution of MASE", "errors"),
    "convergence": Figure("Results", "error against cost", "errors"),
    "trends": Figure("Results", "MASE by volume fraction and grain size", "errors"),
    "effective": Figure("Effective properties", "effective moduli by volume fraction", "effective", "solver"),
    "effective_errors": Figure("Effective properties", "error of the effective properties against cost", "errors"),
    "curves": Figure("Load paths", "stress–strain curves", "curves", "solver"),
    "plastic": Figure("Load paths", "accumulated plastic strain", "paths", "solver"),
    "gallery": Figure("Fields", "microstructures and their {field}", "examples", "solver"),
    "distributions": Figure("Fields", "distribution of the {field}", "examples"),
    "interfaces": Figure("Fields", "error near interfaces", "examples"),
    "comparison": Figure("Fields", "all predictors on one microstructure", "examples"),
    "slices": Figure("Fields", "truth, prediction, error", "examples", "one network"),
    "iterates": Figure("Fields", "iterates pass by pass", "examples", "one network"),
    "density": Figure("Fields", "predicted against true {field}", "examples", "one network"),
}
FIRST_PAGE = ("convergence", "mase", "gallery")  # the figures on the first page of the report
