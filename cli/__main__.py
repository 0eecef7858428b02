"""`python -m galirep.cli`."""

from . import cli

cli(prog_name="galirep")
