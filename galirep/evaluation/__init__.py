"""Evaluation of trained runs: pictures, probes with few labels, baselines, tables."""
