"""What a path holds: a run, a checkpoint, an embedding file or an index."""
