"""Detectors: settings, tiles, candidate boxes and which of them are kept."""
