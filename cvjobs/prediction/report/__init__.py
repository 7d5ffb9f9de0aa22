"""The page that a run leaves in its output."""
