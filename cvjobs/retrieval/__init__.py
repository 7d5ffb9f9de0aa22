"""The index of an embeddings output: built, kept up to date, opened and searched."""
