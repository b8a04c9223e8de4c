"""redis-py's client as the processes of a simulation have it: each command is a turn.

1. A script, and a transaction, is one command; of a plain pipeline each command is one, since a server may mix them
   with those of others.
2. Only scripts change an index, so only what a script was sent may arrive late, after it was given up and sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import redis
from redis.client import Pipeline
from simulation import Scheduler

Observer = Callable[[Sequence[Any], Any], None]


class SimulatedClient(redis.Redis):
    """redis-py's client, on one connection that all actors share, taking turns; its pool and retries are left out.

    observer : is told each command with its reply, as soon as the server has applied it.
    """

    def __init__(self, url: str) -> None:
        super().__init__(connection_pool=redis.ConnectionPool.from_url(url))
        self._line = self.connection_pool.get_connection()
        self.scheduler: Scheduler | None = None
        self.observer: Observer | None = None

    def in_turn(self, send: Callable[[], Any], *, may_be_late: bool = False) -> Any:
        """Send when it is the running actor's turn; at once when no simulation runs."""
        return send() if self.scheduler is None else self.scheduler.command(send, may_be_late=may_be_late)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self.in_turn(lambda: self.send(args, options), may_be_late=args[0] == "EVALSHA")

    def send(self, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """One command and its reply, now."""
        # redis-py's own packing looks at each argument for kinds that are not used here: a tenth of a simulation
        packed = hiredis.pack_command((*args[0].split(), *args[1:]))
        self._line.send_packed_command([packed], check_health=False)
        reply = self.parse_response(self._line, args[0], **options)
        if self.observer is not None:
            self.observer(args, reply)
        return reply

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> SimulatedPipeline:
        return SimulatedPipeline(self, transaction, shard_hint)

    def close(self) -> None:
        self.connection_pool.release(self._line)
        super().close()


class SimulatedPipeline(Pipeline):
    """A transaction is one command; of a plain pipeline each command is one."""

    def __init__(self, client: SimulatedClient, transaction: bool, shard_hint: Any) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, shard_hint)
        self._client = client

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands, self.command_stack = self.command_stack, []
        if not commands:
            return []
        if self.transaction:
            line = self._client._line
            return self._client.in_turn(lambda: self._execute_transaction(line, commands, raise_on_error))
        return [self._client.execute_command(*args, **options) for args, options in commands]
