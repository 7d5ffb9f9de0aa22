"""What a batch job computes for each image: one module a task."""
