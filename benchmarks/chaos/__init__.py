"""Everything that may go wrong, at length: kills and pauses of real processes, lost replies, bad items, hostile jobs
and files, full memory, ordinary life with faults in between, and an index against a dictionary.

What each proves, and what it does not: docs/reliability.md. Short forms are in the test command (tests/faults).
"""
