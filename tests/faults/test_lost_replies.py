"""Whatever was done and whose reply was lost, is asked for again: nothing of it is done twice.

Fifty losses of each kind: `python -m benchmarks.chaos replies`.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import redis

from stream_hash.storage import scripts
from tests.faults.lossy_proxy import Losses
from tests.faults.lost_replies import differences, never_called, run, run_losing

WANTED = 2
MOST_RUNS = 15
SLOW_SECONDS = 0.002


@pytest.mark.timeout(240)
def test_each_kind_of_call_may_lose_its_reply_and_nothing_is_done_twice(
    real_client: redis.Redis, embedded_url: str, server_directory: Path
) -> None:
    expected = run(real_client, embedded_url)
    assert differences(expected, run(real_client, embedded_url)) == [], "two lives without a loss are not the same"
    losses = Losses(WANTED, seed=1)
    server = Path(embedded_url.removeprefix("unix://"))
    for number in range(MOST_RUNS):
        slow = SLOW_SECONDS * (number % 2)
        assert differences(expected, run_losing(real_client, server, server_directory, losses, slow=slow)) == []
        if not losses.left:
            break
    assert losses.left == {}
    assert never_called(losses.seen.keys()) == []


@pytest.mark.timeout(120)
def test_a_ledger_that_takes_a_batch_twice_is_found_out(
    real_client: redis.Redis, embedded_url: str, server_directory: Path
) -> None:
    once = "if first then -- rule: once"
    accept = scripts.sources()["accept"]
    assert once in accept
    without = {**scripts.sources(), "accept": accept.replace(once, "if false then")}
    calls: list[list[str]] = []

    def loses(names: list[str]) -> bool:
        calls.append(names)
        return names == ["EVAL"] and calls.count(names) == 1  # a text that is none of ours, for the first time

    with mock.patch.object(scripts, "sources", return_value=without), pytest.raises(AssertionError):
        run_losing(real_client, Path(embedded_url.removeprefix("unix://")), server_directory, loses)
    assert ["EVAL"] in calls
