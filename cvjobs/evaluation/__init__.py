"""Predictions beside the ground truth: which images and classes are meant, the numbers of each task, and their page."""
