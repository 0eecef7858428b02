"""Metrics as pure functions of arrays: ranking, k-NN vote, the posterior, reconstruction."""
