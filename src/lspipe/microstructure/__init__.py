"""Seeded generators of periodic microstructures."""

from lspipe.microstructure.gaussian import Gaussian as Gaussian
from lspipe.microstructure.generator import KINDS as KINDS
from lspipe.microstructure.generator import Generator as Generator
from lspipe.microstructure.generator import read_generator as read_generator
from lspipe.microstructure.inclusions import Fibres as Fibres
from lspipe.microstructure.inclusions import ShortFibres as ShortFibres
from lspipe.microstructure.inclusions import Spheres as Spheres
from lspipe.microstructure.polycrystal import Polycrystal as Polycrystal
from lspipe.microstructure.samples import SPLITS as SPLITS
from lspipe.microstructure.samples import Microstructures as Microstructures
from lspipe.microstructure.samples import generate as generate
