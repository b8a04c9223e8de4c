"""The trainer: `python -m workers.trainer_worker`.

Rules
1. Any number may run, on any number of machines: one at a time works on an index (stream_hash/service/lease.py), and
   the others follow when it dies.
2. It looks at every index every few seconds, in between two requests: nothing that is due waits for anybody to ask,
   and nothing has to be planned ahead or remembered.
3. Told to stop, it finishes the step in hand and leaves. What is left is on the server, for the next.
"""

from __future__ import annotations

from typing import Final

import click

from stream_hash.queue import TRAIN_QUEUE
from stream_hash.queue.arguments import LEARNERS
from workers.command import leave_with, supervise
from workers.supervisor import leave_with_supervisor

LOOK_SECONDS: Final = 3
INTERVAL_SECONDS: Final = 300.0
LABELS: Final = 1_000


def run(
    url: str | None = None,
    broker_url: str | None = None,
    *,
    interval_seconds: float = INTERVAL_SECONDS,
    labels: int = LABELS,
    learner: str = "pa",
    throttle: float = 1.0,
    processes: int = 1,
) -> int:
    """Train whatever is due until told to stop. Returns the exit code. Raises StreamHashError.

    url : of the index's server or cluster. broker_url : of the queue's, when that is another one. interval_seconds,
    labels : an index is due so long after its last training, or after so many new labels, whichever comes first.
    throttle : share of the time in which a re-index is worked on.
    """
    if processes > 1:
        options = ["--interval", str(interval_seconds), "--labels", str(labels), "--learner", learner]
        command = ["workers.trainer_worker", *options, "--throttle", str(throttle)]
        return supervise(command, processes, url, broker_url)

    # Not needed by a supervisor, and half a second of imports.
    from stream_hash.jobs import TRAINER_FUNCTIONS
    from stream_hash.priority import lower_priority
    from stream_hash.service.connections import Connections
    from stream_hash.service.schedule import Schedule, Trainers
    from workers.base import StreamWorker
    from workers.tuning import tune

    tune()
    leave_with_supervisor()
    lower_priority()
    connections = Connections.open(url, broker_url)
    trainers = Trainers(connections, Schedule(interval_seconds, labels), learner=learner, throttle=throttle)
    worker = StreamWorker(
        TRAIN_QUEUE,
        connections.broker,
        functions=TRAINER_FUNCTIONS,
        context=trainers,
        on_maintenance=trainers.look,
        maintenance_seconds=LOOK_SECONDS,
    )
    trainers.stop = lambda: worker.stopping
    worker.work()
    return 0


@click.command()
@click.option("--url", help="Server or cluster of the index, without a password.")
@click.option("--broker-url", help="Server of the queue, if it is another one.")
@click.option("--interval", type=click.FloatRange(min=1), default=INTERVAL_SECONDS, show_default=True)
@click.option("--labels", type=click.IntRange(min=1), default=LABELS, show_default=True)
@click.option("--learner", type=click.Choice(LEARNERS), default="pa", show_default=True)
@click.option("--throttle", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True)
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True)
def main(
    url: str | None,
    broker_url: str | None,
    interval: float,
    labels: int,
    learner: str,
    throttle: float,
    processes: int,
) -> None:
    """Learn new hash functions from the labels that arrive, and re-index, until SIGTERM.

    Example: STREAM_HASH_URL=redis://:secret@db:6379 python -m workers.trainer_worker --interval 60
    """
    leave_with(
        lambda: run(
            url,
            broker_url,
            interval_seconds=interval,
            labels=labels,
            learner=learner,
            throttle=throttle,
            processes=processes,
        ),
        url,
        broker_url,
    )


if __name__ == "__main__":
    main()
