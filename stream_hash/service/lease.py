"""Being an index's trainer for as long as a block runs.

Rules
1. A thread renews the lease: a step of training may take longer than a lease, and gives no sign of life in between.
2. The lease only keeps others from beginning in vain. What a trainer that lost it still does is refused by its token
   (storage/trainer_state.py); `check` merely lets it stop sooner.
3. Each block has a holder's name of its own: whoever comes back after losing the lease is somebody else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from typing import Final

from redis import exceptions

from stream_hash.clock import now_milliseconds
from stream_hash.errors import FencedError
from stream_hash.service.handle import IndexHandle
from stream_hash.storage.trainer_state import Held, TrainerState

LEASE_MILLISECONDS: Final = 30_000
RENEW_SECONDS: Final = 5.0

log = logging.getLogger("stream_hash.trainer")


class Lease:
    """The proof that the caller is the trainer, and whether it still is."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.lost: FencedError | None = None

    def check(self) -> None:
        """Raises FencedError when somebody else is the trainer by now, as far as that is known here."""
        if self.lost is not None:
            raise self.lost


@contextlib.contextmanager
def leading(handle: IndexHandle) -> Iterator[Lease | Held]:
    """Be the trainer of an index while the block runs; yields Held when somebody else is."""
    taken = handle.trainer.lead(holder_name(), now=now_milliseconds(), until=now_milliseconds() + LEASE_MILLISECONDS)
    if isinstance(taken, Held):
        yield taken
        return
    lease, ended = Lease(taken.token), threading.Event()
    # Of its own: a handle is for one thread.
    trainer = TrainerState(handle.client, handle.name)
    renewing = threading.Thread(target=_renew, args=(trainer, lease, ended), name="trainer's lease", daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        ended.set()
        renewing.join()
        with contextlib.suppress(FencedError, exceptions.RedisError):  # then it runs out, or is another's
            handle.trainer.release(lease.token)


def holder_name() -> str:
    """A name that nobody else has, and that says where to look."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def _renew(trainer: TrainerState, lease: Lease, ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        try:
            trainer.renew(lease.token, until=now_milliseconds() + LEASE_MILLISECONDS)
        except FencedError as error:
            lease.lost = error
            return
        except exceptions.RedisError as error:
            log.warning("the lease of a trainer was not renewed, and will be tried again: %s", error)
