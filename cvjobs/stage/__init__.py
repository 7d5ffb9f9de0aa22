"""The Stage: fetch, decode, batch, model and write, all overlapped, in one long-lived object.

One Stage owns one GPU, or the CPUs of one machine or actor. Shards of key rows go in; rows come to rest in parts.
"""
