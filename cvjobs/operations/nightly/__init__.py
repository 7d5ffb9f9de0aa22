"""A night: the commands of a pipeline file one after the other, continued and compared."""
