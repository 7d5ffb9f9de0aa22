"""Batch jobs: from a listed source to a published snapshot, one row per image."""
