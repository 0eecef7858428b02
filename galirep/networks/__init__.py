"""Networks by family (E, G and the parts of D), and the files that they are exported to."""
