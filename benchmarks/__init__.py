"""What the service costs, against the least that the same server could do.

    python -m benchmarks.ingest     producer to searchable against raw SET + SADD; memory an item
    python -m benchmarks.query      a query against a bare SUNION + MGET; radius against precision and recall
    python -m benchmarks.peers      the same items and queries through LSHRS, NearPy, faiss, hnswlib, usearch and numpy
    python -m benchmarks.scale      latency, memory, ingest and re-index at 60,000 items and at a million
    python -m benchmarks.quality    precision and ranking of the hash functions; what learning them costs
    python -m benchmarks.live       ten minutes of everything at once: nothing lost, nothing wrong, and what it costs
    python -m benchmarks.kills      real processes killed at sixty named points
    python -m benchmarks.startup    `stream-hash --help` against importing scikit-learn
    python -m benchmarks.simulation the protocol under simulated faults; each of its rules taken out

Each prints a table to standard error, and one JSON object to standard output or to `--json FILE`. Read dataset
(what is indexed), services (the processes around it) and report (medians, the machine) first.
"""
