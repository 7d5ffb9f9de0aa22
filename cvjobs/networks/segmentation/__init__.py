"""Semantic segmentation: from logits to a class for every pixel."""
