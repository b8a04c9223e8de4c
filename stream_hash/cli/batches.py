"""Taking what comes in batches, without waiting for a batch to be full."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def of_size(items: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Lists of `most` items, the last of fewer."""
    left = iter(items)
    while some := list(islice(left, most)):
        yield some


def as_they_come(items: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Lists of up to `most`: what has come while the list before was dealt with, and one item at the least.

    Items are taken in a thread, which is at most `most` ahead. What it raises is raised here, after what came before.
    """
    coming: queue.Queue[list[Item] | BaseException | None] = queue.Queue(maxsize=most)

    def take() -> None:
        try:
            for item in items:
                coming.put([item])
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are used
            coming.put(error)
        else:
            coming.put(None)

    # a daemon: it may wait for input that never comes when the caller has given up
    threading.Thread(target=take, daemon=True).start()
    end: BaseException | None = None
    going = True
    while going:
        some: list[Item] = []
        while going and len(some) < most:
            try:
                came = coming.get(block=not some)
            except queue.Empty:
                break
            if isinstance(came, list):
                some += came
            else:
                going, end = False, came
        if some:
            yield some
    if end is not None:
        raise end
