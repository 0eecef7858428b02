"""How outputs are written: locked by one process, under temporary names, whole or not at all."""
