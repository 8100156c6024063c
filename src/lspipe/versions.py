"""The version of the package, and the versions of the files that it writes.

Raise a version below when files on disk are no longer what this code would write: the workflow then makes them again.
"""

__version__ = "0.1.0"
DATA_VERSION = 3  # stores of microstructures and fields
MODEL_VERSION = 2  # trained weights and their description
EVALUATION_VERSION = 8  # errors and example fields
