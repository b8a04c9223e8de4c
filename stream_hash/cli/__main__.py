"""`python -m stream_hash.cli`, the same as `stream-hash`."""

from stream_hash.cli import main

main(prog_name="stream-hash")
