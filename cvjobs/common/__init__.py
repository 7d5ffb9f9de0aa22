"""Small things that every room needs: errors, paths, formatting, devices, signals."""
