"""Joins numerics and storage: what the index does.

Read in this order: handle (an opened index), ingest (a batch is applied), sweep (what was left behind),
search, items, verify, status, evaluate (methods compared over real indexes), checking (what callers hand in),
connections, context (all indexes of one server, for a worker).
"""
