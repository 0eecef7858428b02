"""What a trained run can do: pictures, probes with few labels, the paper's tables."""
