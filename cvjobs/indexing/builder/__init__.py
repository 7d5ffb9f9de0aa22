"""Building an index: training, coding, recall."""
