"""What a worker works with: its connections, and the indexes it has opened so far."""

from __future__ import annotations

import logging

from redis import exceptions

from stream_hash.errors import IndexMissingError, StreamHashError
from stream_hash.queue import HASH_QUEUE, SafeQueue, batch_waits, enqueue_batch, job_id_of, waiting_ids
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.scoring import Scorer
from stream_hash.service.sweep import sweep
from stream_hash.storage.store import index_names

log = logging.getLogger("stream_hash.context")


class Context:
    """The indexes of one server. Their models stay loaded from job to job."""

    def __init__(self, connections: Connections) -> None:
        self.client = connections.client
        self.broker = connections.broker
        self.scorer = Scorer()
        self._handles: dict[str, IndexHandle] = {}
        self._forbidden: set[str] = set()

    def index(self, name: str) -> IndexHandle:
        """The index of that name. Raises IndexMissingError."""
        if name not in self._handles:
            self._handles[name] = IndexHandle(self.client, name)
        return self._handles[name]

    def forget(self, name: str) -> None:
        """Open the index anew the next time."""
        self._handles.pop(name, None)

    def batches_wait(self) -> bool:
        """Whether a batch waits for the hash workers: one round trip."""
        return batch_waits(SafeQueue(HASH_QUEUE, connection=self.broker))

    def sweep(self) -> int:
        """Sweep every index; what is wrong with one does not keep the others waiting.

        Returns how many batches were put on the queue again.
        """
        queue = SafeQueue(HASH_QUEUE, connection=self.broker)
        waiting = waiting_ids(self.broker, queue)
        enqueued = 0
        for name in index_names(self.client):
            try:
                enqueued += sweep(
                    self.index(name),
                    lambda index, batch: job_id_of(index, batch) in waiting,
                    lambda index, batch: enqueue_batch(queue, index, batch),
                )
            except IndexMissingError:
                self.forget(name)  # listed, and not yet created or wiped
            except exceptions.NoPermissionError as error:
                if name not in self._forbidden:  # an account for some indexes only: others see to the rest
                    log.warning("index %s is not swept: %s", name, error)
                    self._forbidden.add(name)
            except (StreamHashError, exceptions.ResponseError):
                log.exception("index %s could not be swept", name)
        return enqueued


def open_context(url: str | None, broker_url: str | None) -> Context:
    """A context on the server at `url`, or the one the environment names."""
    return Context(Connections.open(url, broker_url))
