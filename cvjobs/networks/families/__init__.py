"""One module a family of models; its name is the word before the slash in `--model family/name`."""
