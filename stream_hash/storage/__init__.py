"""Redis and nothing else: arrays in, arrays out, no mathematics.

Read in this order: keys (the schema), codec and places (the bytes), scripts (the protocol), store (a partition's
items and buckets), ledger (batches on their way), models (what hashes), generations (how one replaces another),
trainer_state (who may do that), connection, server.
"""
