"""Embedding files: schema, writing, reading, `embed`, `merge`, `verify`, export and import."""
