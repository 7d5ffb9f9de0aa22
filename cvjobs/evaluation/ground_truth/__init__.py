"""The ground truth in the formats that it is kept in: one module a format, recognised by what is in it."""
