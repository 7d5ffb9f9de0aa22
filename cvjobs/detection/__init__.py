"""Boxes around objects: the rules a user may choose, looks at tiles and mirror images, and what is kept of them."""
