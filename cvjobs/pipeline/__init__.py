"""A night: the commands of a pipeline file one after the other, kept track of, continued, compared on a page."""
