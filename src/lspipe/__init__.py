"""Learned localization for the Lippmann–Schwinger equation."""

from importlib import import_module
from typing import TYPE_CHECKING

from lspipe.versions import __version__ as __version__

if TYPE_CHECKING:
    from lspipe.cell.bounds import bounds as bounds
    from lspipe.cell.crystal import Cubic as Cubic
    from lspipe.cell.crystal import Hexagonal as Hexagonal
    from lspipe.cell.effective import Effective as Effective
    from lspipe.cell.expansion import effective_expansion as effective_expansion
    from lspipe.cell.homogenize import effective_conductivity as effective_conductivity
    from lspipe.cell.homogenize import effective_stiffness as effective_stiffness
    from lspipe.cell.homogenize import homogenize as homogenize
    from lspipe.cell.inelastic import Inelastic as Inelastic
    from lspipe.cell.inelastic import check_law as check_law
    from lspipe.cell.laws.hardening import Swift as Swift
    from lspipe.cell.laws.hardening import Voce as Voce
    from lspipe.cell.laws.plasticity import Plastic as Plastic
    from lspipe.cell.material import Anisotropic as Anisotropic
    from lspipe.cell.material import Conductor as Conductor
    from lspipe.cell.material import Isotropic as Isotropic
    from lspipe.cell.material import Void as Void
    from lspipe.cell.path import Path as Path
    from lspipe.cell.path import solve_path as solve_path
    from lspipe.cell.path_problem import PathProblem as PathProblem
    from lspipe.cell.problem import Problem as Problem
    from lspipe.cell.solver import Solution as Solution
    from lspipe.cell.solver import solve as solve
    from lspipe.images import read_images as read_images
    from lspipe.microstructure import Fibres as Fibres
    from lspipe.microstructure import Gaussian as Gaussian
    from lspipe.microstructure import Polycrystal as Polycrystal
    from lspipe.microstructure import ShortFibres as ShortFibres
    from lspipe.microstructure import Spheres as Spheres
    from lspipe.microstructure import generate as generate
    from lspipe.models.files import load_model as load_model
    from lspipe.store import open_dataset as open_dataset

# The module of each public name. It is imported when the name is first used: torch alone takes seconds.
_MODULES = {
    "Anisotropic": "cell.material",
    "Conductor": "cell.material",
    "Cubic": "cell.crystal",
    "Effective": "cell.effective",
    "Fibres": "microstructure",
    "Gaussian": "microstructure",
    "Hexagonal": "cell.crystal",
    "Inelastic": "cell.inelastic",
    "Isotropic": "cell.material",
    "Path": "cell.path",
    "PathProblem": "cell.path_problem",
    "Plastic": "cell.laws.plasticity",
    "Polycrystal": "microstructure",
    "Problem": "cell.problem",
    "ShortFibres": "microstructure",
    "Solution": "cell.solver",
    "Spheres": "microstructure",
    "Swift": "cell.laws.hardening",
    "Voce": "cell.laws.hardening",
    "Void": "cell.material",
    "bounds": "cell.bounds",
    "check_law": "cell.inelastic",
    "effective_conductivity": "cell.homogenize",
    "effective_expansion": "cell.expansion",
    "effective_stiffness": "cell.homogenize",
    "generate": "microstructure",
    "homogenize": "cell.homogenize",
    "load_model": "models.files",
    "open_dataset": "store",
    "read_images": "images",
    "solve": "cell.solver",
    "solve_path": "cell.path",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f"lspipe.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'lspipe' has no attribute {name!r}")
