"""Training: labelled images, their decoded cache, the loop over epochs, checkpoints, and who runs it."""
