"""How rows are put into an embedding file, by schema, so that a kill at any moment loses none."""
