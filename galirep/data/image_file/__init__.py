"""How the bytes of one image file become a loaded Pillow image: formats, limits, metadata, damage that Pillow hides."""
