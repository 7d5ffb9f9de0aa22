"""Who runs the engine: this process, or Ray actors."""
