"""What there is to work on: listings of folders, globs, buckets and lists, and the bytes of what they list."""
