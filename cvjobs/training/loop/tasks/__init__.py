"""What a training can be of: one module a task."""
