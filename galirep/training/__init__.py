"""Training of E, G and D: settings, optimizers, evaluation, the loop."""
