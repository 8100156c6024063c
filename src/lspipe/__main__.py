"""``python -m lspipe`` is the command ``lspipe``."""

from lspipe.cli import main

main()
