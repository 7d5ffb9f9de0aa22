"""What is true of images, in the formats that it is kept in: one module a format, named as ``--truth-format`` names it.

Each has ``fits(path)``, which looks cheaply whether a place is of its format, and ``read(path, ...)``.
"""
