"""Embedding files to and from the layouts of other tools."""
