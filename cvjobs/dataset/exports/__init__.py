"""One module a format; its name is what `cvjobs export --format` takes."""
