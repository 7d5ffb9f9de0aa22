"""Reaching what is not a file: object stores through obstore and web servers, their options and errors in words."""

from cvjobs.remote.buckets import Address, Buckets, address, filesystem, in_words, reason
from cvjobs.remote.objects import Changed, Remote, Seen, is_remote, seen
from cvjobs.remote.options import Options, hidden, parse_options

__all__ = [
    "Address",
    "Buckets",
    "Changed",
    "Options",
    "Remote",
    "Seen",
    "address",
    "filesystem",
    "hidden",
    "in_words",
    "is_remote",
    "parse_options",
    "reason",
    "seen",
]
