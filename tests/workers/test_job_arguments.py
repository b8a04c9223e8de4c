"""What a job may be given: what is sent can be read, and nothing else can."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from stream_hash.errors import UsageError
from stream_hash.jobs import FUNCTIONS, TRAINER_FUNCTIONS
from stream_hash.queue import (
    BUILD_CHUNK,
    HASH_QUEUE,
    TRAIN,
    TRAIN_QUEUE,
    ChunkArgument,
    SafeJob,
    SafeQueue,
    TrainArgument,
    chunk_job_id,
    chunk_of,
    enqueue_batch,
    enqueue_chunk,
    enqueue_training,
    job_id_of,
    training_of,
)
from stream_hash.queue.arguments import APPLY_BATCH, LEARNERS, MAX_CHUNKS, PLAN
from stream_hash.service.training import TrainingPlan
from stream_hash.settings import NUMBER_BITS
from stream_hash.storage.generations import chunks_of


def test_each_function_stands_under_its_own_dotted_name_and_in_one_table() -> None:
    for table in (FUNCTIONS, TRAINER_FUNCTIONS):
        for name, function in table.items():
            assert name == f"{function.__module__}.{function.__qualname__}"
    assert set(FUNCTIONS) == {APPLY_BATCH, BUILD_CHUNK}
    assert set(TRAINER_FUNCTIONS) == {TRAIN}


def test_a_plan_is_checked_field_by_field_as_training_has_them() -> None:
    plan = TrainingPlan()
    assert set(PLAN) == {field.name for field in fields(plan)}
    assert all(PLAN[name](value) for name, value in vars(plan).items())
    for learner in LEARNERS:
        assert TrainingPlan(learner=learner).learner == learner


def test_the_highest_chunk_is_that_of_a_full_partition() -> None:
    assert chunks_of(2**NUMBER_BITS) == MAX_CHUNKS


@pytest.mark.parametrize("chunk", [ChunkArgument(0, 1, 0), ChunkArgument(1_023, 10**9 - 1, MAX_CHUNKS - 1)])
def test_a_chunk_is_read_as_it_was_sent(broker: Any, chunk: ChunkArgument) -> None:
    queue = SafeQueue(HASH_QUEUE, broker)
    job = SafeJob.fetch(enqueue_chunk(queue, "items", chunk), broker)
    assert (job.func_name, job.args) == (BUILD_CHUNK, ["items", str(chunk)])
    assert chunk_of(job.args[1]) == chunk
    assert (job.timeout, job.retries_left, job.origin) == (120, None, HASH_QUEUE)


def test_a_request_is_read_as_it_was_sent(broker: Any) -> None:
    plan = {"learner": "svm", "window": 500, "margin": 0.5, "force": True, "dry_run": False}
    queue = SafeQueue(TRAIN_QUEUE, broker)
    job = SafeJob.fetch(enqueue_training(queue, "items", TrainArgument("r1", plan)), broker)
    assert (job.func_name, job.args[0]) == (TRAIN, "items")
    assert training_of(job.args[1]) == ("r1", plan)
    assert (job.timeout, job.retries_left, job.origin) == (3_600, 3, TRAIN_QUEUE)


def test_what_could_not_be_read_is_not_sent(broker: Any) -> None:
    queue = SafeQueue(HASH_QUEUE, broker)
    with pytest.raises(UsageError, match="argument"):
        enqueue_chunk(queue, "items", ChunkArgument(1_024, 1, 0))
    with pytest.raises(UsageError, match="argument"):
        enqueue_training(queue, "items", TrainArgument("r1", {"learner": "luck"}))
    assert broker.keys("*") == []


def test_a_chunk_goes_before_the_batches_that_wait(broker: Any) -> None:
    queue = SafeQueue(HASH_QUEUE, broker)
    enqueue_batch(queue, "items", "b1")
    enqueue_chunk(queue, "items", ChunkArgument(0, 2, 5))
    assert queue.get_job_ids() == ["items-0-2-5-5c", "items-b1-5"]


def test_no_batch_has_the_job_of_a_chunk() -> None:
    """A batch's id ends with the length of the index's name, a chunk's with a letter."""
    assert chunk_job_id("i", ChunkArgument(0, 2, 5)) == "i-0-2-5-1c"
    assert job_id_of("i", "0-2-5") == "i-0-2-5-1"
