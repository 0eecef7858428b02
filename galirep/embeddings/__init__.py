"""Embedding files: schema, writing, reading, `embed`, `merge`, `verify`, other formats."""
