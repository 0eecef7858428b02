"""What people hand over in Python as images, read as the files of a data set are."""
