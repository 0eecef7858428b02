"""Images: file formats and pixels, image sets by name, decoding in workers, batches."""
