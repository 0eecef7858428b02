"""Encoder, generator and parts of D by family, and the files they are exported to."""
