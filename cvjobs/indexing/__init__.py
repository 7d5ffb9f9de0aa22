"""Nearest neighbours with FAISS: an index of an embed output, kept up to date and searched."""
