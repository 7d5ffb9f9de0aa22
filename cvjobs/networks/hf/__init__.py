"""Models of `transformers`: where their files are, and what they become here."""
