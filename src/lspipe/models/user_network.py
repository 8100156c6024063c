"""A network whose class belongs to the user: docs/network.md shows how to write one."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lspipe.models.network import Network, around, indicators


class UserNetwork(Network):
    """The class ``architecture`` = ``module:Class``, which extends torch.nn.Module, as one of the networks here.

    ``file`` is its source, which messages name. The class is built with ``phases`` and ``channels``. It maps the
    indicators of the phases to a field, or to a list of as many fields as its attribute ``passes`` says. Their mean is
    replaced by the macroscopic strain, which is also passed where ``forward`` has an argument ``mean``.
    """

    def __init__(self, architecture: str, file: Path | None, phases: int, channels: int) -> None:
        self.architecture, self.file = architecture, file
        module, name = architecture.split(":")
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        with self.explaining(f"import {module}"):
            kind = getattr(import_module(module), name, None)
        imported = getattr(sys.modules[module], "__file__", None)
        if not imported or Path(imported).resolve() != Path(self.file or "").resolve():
            raise ValueError(
                f"architecture = {architecture!r}: Python has imported {module} from {imported}, not from {self.file}; "
                "rename the module"
            )
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise ValueError(
                f"architecture = {architecture!r}: {self.file} has no class {name} that extends torch.nn.Module"
            )
        with self.explaining(f"{name}(phases={phases}, channels={channels})"):
            network = kind(phases=phases, channels=channels)
        passes = getattr(network, "passes", 1)
        if not isinstance(passes, int) or passes < 1:
            raise ValueError(f"architecture = {architecture!r}: passes = {passes!r}; must be an integer, at least 1")
        if not any(p.requires_grad for p in network.parameters()):
            raise ValueError(f"architecture = {architecture!r}: has no parameters to train; see docs/network.md")
        super().__init__(channels, passes)
        self.phases = phases
        self.network = network
        self.sees_mean = "mean" in signature(network.forward).parameters

    def forward(self, phase: Tensor, mean: Tensor, passes: int | None = None) -> list[Tensor]:
        fields = self.run(phase, mean)
        fields = [fields] if isinstance(fields, Tensor) else fields
        return [around(mean, field.to(mean.dtype)) for field in fields[:passes]]

    def run(self, phase: Tensor, mean: Tensor) -> Any:
        """Return what the user's class returns."""
        return self.network(indicators(phase, self.phases), **{"mean": mean} if self.sees_mean else {})

    def check(self, phase: Tensor, loads: int) -> None:
        """Raise ValueError unless the class gives fields of the right shape for microstructures (N, nx, ny, nz).

        It must also see the mean to learn several loads.
        """
        if loads > 1 and not self.sees_mean:
            raise ValueError(
                f"architecture = {self.architecture!r}: forward has no argument mean, which it needs to learn {loads} "
                "loads; see docs/network.md"
            )
        shape = (len(phase), self.channels, *phase.shape[1:])
        with torch.no_grad(), self.explaining(f"forward on phases {tuple(phase.shape)}"):
            fields = self.eval().run(phase, torch.ones(self.channels, 1, 1, 1))
            self.train()
        fields = fields if isinstance(fields, list | tuple) else [fields]
        given = [tuple(field.shape) if isinstance(field, Tensor) else type(field).__name__ for field in fields]
        if given != [shape] * self.passes:
            times = f" {self.passes} times, once for each of its passes" * (self.passes > 1)
            raise ValueError(
                f"architecture = {self.architecture!r}: forward returns {', '.join(map(str, given)) or 'no field'}; "
                f"must return {shape}{times}"
            )

    @contextmanager
    def explaining(self, action: str) -> Iterator[None]:
        """Turn an error of the user's code in the ``with`` block into a ValueError of one line with its place."""
        try:
            yield
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [f", line {frame.lineno}" for frame in frames if frame.filename == str(self.file)]
            message = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"architecture = {self.architecture!r}: {action} fails: {message} ({self.file}{''.join(lines[-1:])})"
            ) from error
