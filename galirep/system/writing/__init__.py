"""Writing files so that a full disk is one clear error and an older file stays whole."""
