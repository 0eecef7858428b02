"""The adversarial game: variants as data, chains, masks, D, objectives, one update."""
