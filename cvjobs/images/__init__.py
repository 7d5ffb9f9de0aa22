"""From bytes to pixels: decoding in child processes, masks, and the loader that fetches and decodes."""
