"""Masks as text and as PNG."""
