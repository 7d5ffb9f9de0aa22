"""A folder of masks beside an output, a PNG an image."""
