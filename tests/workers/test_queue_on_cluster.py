"""RQ on a cluster: every key in one slot, or a clear refusal.

rq reads RQ_KEY_PREFIX when it is imported, so each case is a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import bundled_binary, running_cluster

USE = """
import sys
from redis.cluster import RedisCluster
from stream_hash.queue import *
from stream_hash.queue.arguments import APPLY_BATCH
from stream_hash.queue.safe_queue import malformed_key
from workers.base import StreamWorker

url = sys.argv[1]
cluster = RedisCluster.from_url(url)
for target in (cluster, url):
    broker = broker_for(target)
    queue = SafeQueue(HASH_QUEUE, broker)
    done = []
    broker.hset(SafeJob.key_for("evil"), mapping={"data": b"x"})
    broker.rpush(queue.key, "evil")
    for number in range(40):
        enqueue_batch(queue, "items", f"b{number}")
    assert len(waiting_ids(broker, queue)) == 41
    functions = {APPLY_BATCH: lambda context, index, batch: done.append(batch)}
    StreamWorker(HASH_QUEUE, broker, functions=functions, context=None).work(burst=True)
    assert len(done) == 40
    assert live_workers(broker, HASH_QUEUE) == []
    assert broker.delete(malformed_key("evil"))
print("done")
"""


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory, running_cluster(bundled_binary(), Path(directory)) as url:
        yield url


def use(cluster_url: str, prefix: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RQ_KEY_PREFIX": prefix}
    command = [sys.executable, "-c", USE, cluster_url]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("prefix", ["{rq}", "team{7}-rq"])
def test_with_a_tagged_prefix_every_job_is_done_on_a_cluster(cluster_url: str, prefix: str) -> None:
    outcome = use(cluster_url, prefix)
    assert outcome.stdout == "done\n", outcome.stderr


def test_without_a_tag_a_cluster_is_refused_with_the_remedy(cluster_url: str) -> None:
    outcome = use(cluster_url, "rq")
    assert outcome.returncode == 1
    assert "RQ's keys cannot be placed on a cluster: their prefix is 'rq'" in outcome.stderr
