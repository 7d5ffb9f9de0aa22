"""A folder beside an output with a file an image: masks, or pictures with what was found drawn over them."""
