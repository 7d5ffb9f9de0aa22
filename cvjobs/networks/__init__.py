"""Models: found by name, loaded with their weights, run on one device."""
