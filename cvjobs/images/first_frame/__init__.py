"""The first picture of a file without the rest of it: where it lies, in each format."""
