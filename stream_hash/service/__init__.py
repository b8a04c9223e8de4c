"""Joins numerics and storage: what the index does.

Read in this order: handle (an opened index), ingest (a batch is applied), sweep (what was left behind),
search, items, verify, status, context (all indexes of one server, for a worker).
"""
