"""A run's model as a file for other programs: what it holds, how it is written, and how it is checked."""
