"""The models of each family in a file: what `cvjobs models` says without importing the family's libraries."""
