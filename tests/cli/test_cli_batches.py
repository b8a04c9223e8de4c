from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest

from stream_hash.cli.batches import as_they_come, of_size


def test_batches_of_a_size_are_full_but_for_the_last() -> None:
    assert list(of_size(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(of_size([], 3)) == []


def test_what_has_come_is_not_kept_waiting_and_what_comes_meanwhile_comes_together() -> None:
    source: queue.Queue[int | None] = queue.Queue()
    taken: queue.Queue[int] = queue.Queue()

    def coming() -> Iterator[int]:
        while (item := source.get()) is not None:
            yield item
            taken.put(item)

    batches = as_they_come(coming(), 3)
    source.put(0)
    assert next(batches) == [0]
    for item in (1, 2, 3, 4, None):
        source.put(item)
    for _ in range(4):
        taken.get(timeout=10)  # 3 of them, and the one before, are waiting
    assert next(batches) == [1, 2, 3]
    assert list(batches) == [[4]]


def test_an_error_is_raised_after_what_came_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("broken")

    seen: list[int] = []
    with pytest.raises(ValueError, match="broken"):
        for some in as_they_come(failing(), 10):
            seen += some
    assert seen == [1, 2]
