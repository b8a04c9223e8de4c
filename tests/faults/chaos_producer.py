"""A producer that may be killed at any moment: `python -m tests.faults.chaos_producer INDEX NAME FOLDER`.

Rules
1. What batch n of a producer holds follows from its name and n. So what has to be there in the end follows from how
   far each producer came, and no two producers write the same ids.
2. A batch is noted in the journal after it was accepted. Who is killed in between is followed by one that sends the
   batch again, under the same id; it is then accepted once.
3. Ids are used again and again: an index under this traffic does not grow without an end.
4. It leaves when the file STOP is there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from stream_hash import Producer
from stream_hash.errors import BackPressureError, OutOfMemoryError, ServerUnreachableError
from stream_hash.storage.codec import Batch
from tests.faults.killed_traffic import BATCH_ITEMS, upsert

STOP: Final = "stop"
OFTEN: Final = 240
NEW: Final = 4_800
MOST_PENDING: Final = 400
PAUSE_SECONDS: Final = 0.02


def batch_of(name: str, number: int) -> Batch:
    """What a producer sends as its batch `number`, from 1 on."""
    rng = np.random.default_rng([*name.encode(), number])
    often = [f"{name}-often-{n}" for n in rng.choice(OFTEN, size=BATCH_ITEMS, replace=False)]
    if number % 8 == 5:
        return Batch("delete", often[: BATCH_ITEMS // 2])
    if number % 3 == 0:
        return upsert(rng, often)
    return upsert(rng, [f"{name}-{n % NEW}" for n in range(number * BATCH_ITEMS, (number + 1) * BATCH_ITEMS)])


@dataclass(frozen=True)
class Noted:
    """An accepted batch. moment : of its acceptance, Unix seconds."""

    number: int
    moment: float


def journal_of(folder: Path, name: str) -> Iterator[Noted]:
    """What a producer noted, in order; a line that was being written when it died is left out."""
    for line in _lines(folder / f"{name}.journal"):
        number, moment = line.split()
        yield Noted(int(number), float(moment))


def produce(index: str, name: str, folder: Path) -> None:
    """Send batches, from where the journal ends."""
    number = max((noted.number for noted in journal_of(folder, name)), default=0)
    path = folder / f"{name}.journal"
    whole = sum(len(line) + 1 for line in _lines(path))
    with path.open("ab") as journal:
        journal.truncate(whole)
        producer: Producer | None = None
        while not (folder / STOP).exists():
            try:
                if producer is None:
                    producer = Producer(index, max_pending=MOST_PENDING, timeout_seconds=1.0)
                producer.submit(batch_of(name, number + 1), f"{name}-{number + 1}")
            except (ServerUnreachableError, BackPressureError, OutOfMemoryError):
                time.sleep(PAUSE_SECONDS)
                continue
            number += 1
            journal.write(f"{number} {time.time():.3f}\n".encode())
            journal.flush()
            time.sleep(PAUSE_SECONDS)


def _lines(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1] if path.exists() else []


if __name__ == "__main__":
    produce(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
