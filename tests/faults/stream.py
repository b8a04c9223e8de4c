"""A producer process: streams items FIRST to LAST of a made-up data set, and says what was accepted.

Each batch has an id of its own that depends on its items alone, so that this process, or another one after
it was killed, may submit it again whenever it does not know whether it was accepted.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from numpy.typing import NDArray

from stream_hash import Producer
from stream_hash.errors import ServerUnreachableError
from stream_hash.storage.codec import Batch

BATCH_ITEMS = 250
DIMENSION = 32


def vectors_of(first: int) -> NDArray[np.float32]:
    """The vectors of the batch that begins with item `first`."""
    return np.random.default_rng(first).normal(size=(BATCH_ITEMS, DIMENSION)).astype(np.float32)


def ids_of(first: int) -> list[str]:
    return [f"item-{i}" for i in range(first, first + BATCH_ITEMS)]


def main(url: str, index: str, first: int, last: int) -> None:
    producer = None
    for start in range(first, last, BATCH_ITEMS):
        batch = Batch("upsert", ids_of(start), vectors_of(start), [str(start)] * BATCH_ITEMS, None)
        while True:
            try:
                producer = producer or Producer(index, url)
                producer.submit(batch, f"from-{start}")
                break
            except ServerUnreachableError:
                time.sleep(0.1)
        print(start, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
