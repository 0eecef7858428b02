"""Sets of image files in folders and tars: which files are images, their splits and their classes."""
