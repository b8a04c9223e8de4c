"""An index and a dictionary are told the same, step by step, and answer the same.

Two thousand examples of fifty steps: `python -m benchmarks.chaos machine`.
"""

from __future__ import annotations

import fakeredis
import redis

from tests.faults import index_machine


def test_an_index_is_a_dictionary_on_a_real_server(real_client: redis.Redis) -> None:
    done = index_machine.run(real_client, examples=100, steps=20)
    assert [way for way in index_machine.WAYS if not done[way]] == []


def test_an_index_is_a_dictionary_on_fakeredis() -> None:
    with fakeredis.FakeRedis() as client:
        done = index_machine.run(client, examples=20, steps=20)
    assert min(done["steps"], done["queries"], done["batches applied, in any order"]) > 0
