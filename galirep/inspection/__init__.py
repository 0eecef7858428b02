"""`info`: what a path is, a run, an export, a checkpoint, an embedding file or an index."""
