"""Segmentation: a network's class maps and masks at the size of each image, and how they are written."""
