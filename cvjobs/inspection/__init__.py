"""Data looked at before anything is spent on them: images, labels, boxes and masks."""
