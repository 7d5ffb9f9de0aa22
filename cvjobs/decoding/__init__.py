"""Decoding in child processes: a crash, a hang or a memory blow-up costs one image, never the worker."""
