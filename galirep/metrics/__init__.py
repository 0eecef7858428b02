"""Measures as pure functions of arrays: ranking, neighbours, the posterior, Fréchet distance, intervals."""
