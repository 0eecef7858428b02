"""What the machine gives: atomic files and hashes, devices, signals, threads, settings from text."""
