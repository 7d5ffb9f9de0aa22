"""The epochs of a training, in one process or on several workers."""
