"""Redis and nothing else: arrays in, arrays out, no mathematics.

Read in this order: keys (the schema), codec (the bytes), scripts (the protocol), store (a partition's
items and buckets), ledger (batches on their way), models (what hashes), connection, server.
"""
