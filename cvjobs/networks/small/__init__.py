"""The networks of the family `small`."""
