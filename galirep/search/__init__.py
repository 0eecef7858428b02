"""Exact and approximate nearest neighbours: distances, index files, galleries."""
