"""Pictures of trained runs: samples, reconstructions, inpainting, interpolation."""
