"""What is true of images, in the formats that it is kept in: one module a format, recognised by what is in it.

Each has ``fits(path)``, which looks cheaply whether a place is of its format, and ``read(path, ...)``.
"""
