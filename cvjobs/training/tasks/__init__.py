"""What a training can be of: a file a task, each what ``task.TaskModule`` says."""
