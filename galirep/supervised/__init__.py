"""Supervised nets that serve as M(.) or as a yardstick: `train_classifier`."""
