"""The adapters that galirep ships, reached only through the entry-point group `galirep.features`."""
