"""Images: how a file becomes pixels, where image sets come from, decoding, batches."""
