"""The installed version."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("galirep")
# a bare checkout on PYTHONPATH has no metadata, and what it says of its version must not be a guess
except PackageNotFoundError:
    __version__ = "0+unknown"
