"""Fetch, decode, batch, model and write, all overlapped, in one long-lived object."""
