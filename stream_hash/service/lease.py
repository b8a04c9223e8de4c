"""Being an index's trainer for as long as a block runs.

Rules
1. A thread renews the lease: a step of training may take longer than a lease, and gives no sign of life in between.
2. The lease only keeps others from beginning in vain. What a trainer that lost it still does is refused by its token
   (storage/trainer_state.py); `check` merely lets it stop sooner.
3. Each block has a holder's name of its own: whoever comes back after losing the lease is somebody else.
4. A holder that was killed is not waited for where that can be told: when its process was on this machine and there is
   none of its number any more. Where process numbers mean something else (another machine, another container) or
   nothing can be told, the lease runs out. By rule 2 a mistake would only cost work.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from redis import exceptions

from stream_hash.errors import FencedError, IndexMissingError
from stream_hash.service.handle import IndexHandle
from stream_hash.storage.connection import Client
from stream_hash.storage.server_clock import server_milliseconds
from stream_hash.storage.trainer_state import Held, TrainerState

LEASE_MILLISECONDS: Final = 30_000
RENEW_SECONDS: Final = 5.0

log = logging.getLogger("stream_hash.trainer")


class Lease:
    """The proof that the caller is the trainer, and whether it still is."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.lost: FencedError | IndexMissingError | None = None

    def check(self) -> None:
        """Raises FencedError when somebody else is the trainer by now, as far as that is known here.

        Raises IndexMissingError when the index was wiped.
        """
        if self.lost is not None:
            raise self.lost


@contextlib.contextmanager
def leading(handle: IndexHandle) -> Iterator[Lease | Held]:
    """Be the trainer of an index while the block runs; yields Held when somebody else is.

    Raises IndexMissingError when the index was wiped.
    """
    name = holder_name()
    now = server_milliseconds(handle.client, handle.name)
    taken = handle.trainer.lead(name, now=now, until=now + LEASE_MILLISECONDS)
    if isinstance(taken, Held) and is_gone(taken.holder):
        log.info("index %s: its trainer %s has died", handle.name, taken.holder)
        taken = handle.trainer.lead(name, now=now, until=now + LEASE_MILLISECONDS, gone=taken.holder)
    if isinstance(taken, Held):
        yield taken
        return
    lease, ended = Lease(taken.token), threading.Event()
    # Of its own: a handle is for one thread.
    trainer = TrainerState(handle.client, handle.name, handle.identity.nonce)
    arguments = (handle.client, handle.name, trainer, lease, ended)
    renewing = threading.Thread(target=_renew, args=arguments, name="trainer's lease", daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        ended.set()
        renewing.join()
        # then it runs out, or is another's, or there is none
        with contextlib.suppress(FencedError, IndexMissingError, exceptions.RedisError):
            handle.trainer.release(lease.token)


def holder_name() -> str:
    """A name that nobody else has, and that says where to look: host, process, and where that number means it."""
    return f"{socket.gethostname()}:{os.getpid()}:{_process_numbers()}:{secrets.token_hex(4)}"


def is_gone(holder: str) -> bool:
    """Whether a holder of a lease is known to be dead: its process was one of this machine, and is not there."""
    host, process, numbers, *_ = [*holder.rsplit(":", 3), "", ""]
    if not numbers or (host, numbers) != (socket.gethostname(), _process_numbers()) or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)  # sends nothing
    except ProcessLookupError:
        return True
    except (OverflowError, PermissionError):  # no number of a process, or somebody else's process
        pass
    return False


@cache
def _process_numbers() -> str:
    """What tells this machine, since it was started, and this container from others: where a process number means one
    process. Empty where the kernel does not say.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return hashlib.sha256(f"{boot}{Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:8]
    except OSError:
        return ""


def _renew(client: Client, index: str, trainer: TrainerState, lease: Lease, ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        try:
            trainer.renew(lease.token, until=server_milliseconds(client, index) + LEASE_MILLISECONDS)
        except (FencedError, IndexMissingError) as error:
            lease.lost = error
            return
        except exceptions.RedisError as error:
            log.warning("the lease of a trainer was not renewed, and will be tried again: %s", error)
