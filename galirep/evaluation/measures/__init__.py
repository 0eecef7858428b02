"""The metrics of `galirep evaluate`: one module a family, listed in `registry.MEASURES`."""
