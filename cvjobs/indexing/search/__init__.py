"""Searching an index: queries, neighbours, duplicates and how they are shown."""
