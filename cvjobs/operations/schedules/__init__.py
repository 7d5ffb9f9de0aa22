"""One module a scheduler; its name is what `cvjobs schedule --emit` takes."""
