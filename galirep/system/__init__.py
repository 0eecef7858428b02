"""The machine: atomic files and hashes, devices, signals, threads, settings from text."""
