"""The engine of the protocol simulation: actors that take turns at every server command, and the faults between.

It knows nothing of an index. Each actor is a thread that runs the product's own code, unchanged, on a
SimulatedClient; before each command the client asks the Scheduler, which may let others go first.

1. One thread runs at a time: it hands its turn to the next and waits. All that is drawn at random comes from one
   generator, and time from the scheduler's clock, so a seed gives the same run again.
2. A pause leaves an actor where it is, with all that it knows, while the others go on. That is the fault that matters
   most.
3. A kill is an exception that no handler catches, raised before a command or after it was applied; a fresh life of
   the actor begins. A lost reply is either repeated, as redis-py does, or raised as a ConnectionError.
4. The commands of a plain pipeline are handed over one by one, as a server may mix them with those of others; a
   transaction and a script are one.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.client import Pipeline

MOST_STEPS = 20_000
"""A run that takes more goes round in circles: fifty times what an ordinary one takes."""


class KilledError(BaseException):
    """The actor's process dies here."""


class StoppedError(BaseException):
    """The run is over, because something went wrong elsewhere."""


@dataclass(frozen=True)
class Faults:
    """How likely each is at a command, until `steps` have been taken; then all calms down."""

    steps: int = 400
    kill: float = 0.006
    pause: float = 0.02
    pause_steps: float = 60.0
    lost_reply: float = 0.03
    switch: float = 0.5


class Actor:
    """A process of the simulation. `fragile` ones are killed and lose connections; the others are only paused."""

    def __init__(self, name: str, body: Callable[[Actor], None], fragile: bool) -> None:
        self.name, self.body, self.fragile = name, body, fragile
        self.lives = 1
        self.asleep_until = 0
        self.dying = False
        self.done = False
        self.turn = threading.Lock()
        self.turn.acquire()

    def __str__(self) -> str:
        """The name of this life: what a process would call itself."""
        return f"{self.name}.{self.lives}"


class Scheduler:
    """Lets actors run, one at a time, and lets things go wrong."""

    def __init__(self, rng: random.Random, faults: Faults) -> None:
        self.rng, self.faults = rng, faults
        self.steps = 0
        self.milliseconds = 1_000_000
        self.failure: BaseException | None = None
        self.failed_actor = ""
        self.happened: Counter[str] = Counter()
        self._actors: list[Actor] = []
        self._running: Actor | None = None
        self._all_done = threading.Lock()
        self._all_done.acquire()

    def add(self, name: str, body: Callable[[Actor], None], *, fragile: bool = True) -> None:
        """Have an actor run `body`; when it is killed, `body` begins anew."""
        self._actors.append(Actor(name, body, fragile))

    def run(self) -> None:
        """Run all actors to their ends. Raises what went wrong first."""
        threads = [threading.Thread(target=self._live, args=(actor,), daemon=True) for actor in self._actors]
        for thread in threads:
            thread.start()
        self._running = self._actors[0]
        self._running.turn.release()
        self._all_done.acquire()
        for thread in threads:
            thread.join()
        self._running = None
        if self.failure is not None:
            raise self.failure

    @property
    def calm(self) -> bool:
        """Whether faults are over."""
        return self.steps > self.faults.steps

    def command(self, send: Callable[[], Any]) -> Any:
        """Take a turn to send one command; what happens to it is drawn."""
        if self._running is None:
            return send()
        self.step()
        reply = send()
        if self.calm or self.rng.random() >= self.faults.lost_reply:
            return reply
        self.happened["lost replies"] += 1
        if self.rng.random() < 0.5:
            self._pause()  # it may take a while until the connection is known to be broken
        self.step()
        ending = self.rng.random()
        if self._running.fragile and ending < 0.4:
            raise redis.ConnectionError("the reply was lost")
        if self._running.fragile and ending < 0.6:
            self._kill()
        return send()

    def sleep(self, steps: int) -> None:
        """Let the others go on for some steps."""
        assert self._running is not None
        self._running.asleep_until = self.steps + steps
        self.step()

    def step(self) -> None:
        """Hand over to whoever is next, perhaps the same."""
        actor = self._running
        assert actor is not None
        if actor.dying:
            raise KilledError  # code that cleans up does not outlive its process
        self.steps += 1
        self.milliseconds += self.rng.randrange(12)
        if self.steps > MOST_STEPS:
            raise AssertionError(f"it does not end: {MOST_STEPS} steps were taken")
        if not self.calm:
            fault = self.rng.random()
            if fault < self.faults.kill and actor.fragile:
                self._kill()
            # what is not killed is paused more often instead: between two reads much can happen
            if fault > 1 - self.faults.pause * (1 if actor.fragile else 4):
                self._pause()
        self._hand_over(actor)

    def _pause(self) -> None:
        assert self._running is not None
        self.happened["pauses"] += 1
        length = self.faults.pause_steps * (10 if self.rng.random() < 0.1 else 1)  # some outlast a whole re-index
        self._running.asleep_until = self.steps + 1 + int(self.rng.expovariate(1 / length))

    def _kill(self) -> None:
        assert self._running is not None
        self.happened["kills"] += 1
        self._running.dying = True
        raise KilledError

    def _hand_over(self, actor: Actor) -> None:
        chosen = self._next(actor)
        if chosen is not actor:
            self._running = chosen
            chosen.turn.release()
            actor.turn.acquire()
        if self.failure is not None:
            raise StoppedError

    def _next(self, actor: Actor) -> Actor:
        if self.failure is not None:
            return next(a for a in self._actors if not a.done)
        awake = [a for a in self._actors if not a.done and a.asleep_until <= self.steps]
        if not awake:
            first = min((a for a in self._actors if not a.done), key=lambda a: a.asleep_until)
            self.steps = first.asleep_until
            return first
        if actor in awake and self.rng.random() >= self.faults.switch:
            return actor
        return self.rng.choice(awake)

    def _live(self, actor: Actor) -> None:
        actor.turn.acquire()
        try:
            while self.failure is None:
                try:
                    actor.body(actor)
                    break
                except (KilledError, redis.ConnectionError):
                    actor.dying = False
                    actor.lives += 1
                    actor.asleep_until = self.steps + self.rng.randrange(40)
                    self._hand_over(actor)
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is what the run found
            if self.failure is None:
                self.failure, self.failed_actor = error, str(actor)
        actor.done = True
        left = [a for a in self._actors if not a.done]
        if left:
            self._running = self._next(left[0])
            self._running.turn.release()
        else:
            self._all_done.release()


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

    def in_turn(self, send: Callable[[], Any]) -> Any:
        """Send when it is the running actor's turn; at once when no simulation runs."""
        return send() if self.scheduler is None else self.scheduler.command(send)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self.in_turn(lambda: self.send(args, options))

    def send(self, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """One command and its reply, now."""
        self._line.send_packed_command(self._line.pack_command(*args), check_health=False)
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
