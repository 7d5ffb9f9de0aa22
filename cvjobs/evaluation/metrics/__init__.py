"""How good predictions are: numbers from arrays. Nothing here knows a file format, an output or a page."""
