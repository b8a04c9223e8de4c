"""The engine of the protocol simulation: actors that take turns at every server command, and the faults between.

It knows nothing of an index. Each actor is a thread that runs the product's own code, unchanged, on a
SimulatedClient; before each command the client asks the Scheduler, which may let others go first.

1. One thread runs at a time: it hands its turn to the next and waits. All that is drawn at random comes from one
   generator, and time from the scheduler's clock, so a seed gives the same run again.
2. A pause leaves an actor where it is, with all that it knows, while the others go on. That is the fault that matters
   most.
3. A kill is an exception that no handler catches, raised before a command or after it was applied; a fresh life of
   the actor begins. A lost reply is either repeated, as redis-py does, or raised as a ConnectionError.
4. A command may arrive late: it was given up for lost, perhaps sent again, and is applied long after.
5. A process may have several threads. They are killed together, and mostly paused together.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

MOST_STEPS = 20_000
"""A run that takes more goes round in circles: fifty times what an ordinary one takes."""


STEP_MILLISECONDS = 5.5
"""What a step takes on average."""


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
    late: float = 0.01
    late_steps: float = 80.0
    switch: float = 0.5


class Actor:
    """A process of the simulation, or one more thread of it. `fragile` ones are killed and lose connections; the
    others are only paused.
    """

    def __init__(self, name: str, body: Callable[[Actor], None], fragile: bool, process: Actor | None = None) -> None:
        self.name, self.body, self.fragile = name, body, fragile
        self.process = process or self
        self.lives = self.process.lives if process else 1
        self.asleep_until = 0
        self.joins: Actor | None = None
        self.killed = False
        self.done = False
        self.turn = threading.Lock()
        self.turn.acquire()

    def __str__(self) -> str:
        """The name of this life: what a process would call itself."""
        return f"{self.name}.{self.lives}"

    @property
    def dying(self) -> bool:
        """Whether its process was killed; a thread does not see the next life of its process."""
        return self.process.killed or self.lives != self.process.lives


class Scheduler:
    """Lets actors run, one at a time, and lets things go wrong."""

    def __init__(self, rng: random.Random, faults: Faults) -> None:
        self.rng, self.faults = rng, faults
        self.steps = 0
        self.milliseconds = 1_000_000
        self.failure: BaseException | None = None
        self.failed_actor = ""
        self.delivers_late = False
        self.happened: Counter[str] = Counter()
        self._actors: list[Actor] = []
        self._threads: list[threading.Thread] = []
        self._late: list[tuple[int, Callable[[], Any]]] = []
        self._running: Actor | None = None
        self._all_done = threading.Lock()
        self._all_done.acquire()

    def add(self, name: str, body: Callable[[Actor], None], *, fragile: bool = True) -> None:
        """Have an actor run `body`; when it is killed, `body` begins anew."""
        self._actors.append(Actor(name, body, fragile))

    def run(self) -> None:
        """Run all actors to their ends. Raises what went wrong first."""
        for actor in self._actors:
            self._start(actor)
        self._running = self._actors[0]
        self._running.turn.release()
        self._all_done.acquire()
        for thread in self._threads:
            thread.join()
        self._running = None
        if self.failure is not None:
            raise self.failure
        self._deliver_late(until=None)

    def begin_thread(self, name: str, body: Callable[[Actor], None]) -> Actor:
        """One more thread of the running process."""
        assert self._running is not None
        actor = Actor(name, body, self._running.fragile, self._running.process)
        self._actors.append(actor)
        self._start(actor)
        return actor

    def _start(self, actor: Actor) -> None:
        self._threads.append(threading.Thread(target=self._live, args=(actor,), daemon=True))
        self._threads[-1].start()

    @property
    def running(self) -> Actor:
        """Whose turn it is."""
        assert self._running is not None
        return self._running

    @property
    def calm(self) -> bool:
        """Whether faults are over."""
        return self.steps > self.faults.steps

    def command(self, send: Callable[[], Any], *, may_be_late: bool = False) -> Any:
        """Take a turn to send one command; what happens to it is drawn."""
        if self._running is None:
            return send()
        self.step()
        if may_be_late and not self.calm and self.rng.random() < self.faults.late:
            self.happened["late commands"] += 1
            self._late.append((self.steps + 1 + int(self.rng.expovariate(1 / self.faults.late_steps)), send))
        else:
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

    def _deliver_late(self, until: int | None) -> None:
        """Apply what arrives by step `until`, or all that is left; nobody hears the replies."""
        due = [one for one in self._late if until is None or one[0] <= until]
        self._late = [one for one in self._late if one not in due]
        self.delivers_late = True
        for _, send in sorted(due, key=lambda one: one[0]):
            with contextlib.suppress(redis.exceptions.NoScriptError):
                send()
        self.delivers_late = False

    def sleep(self, steps: int) -> None:
        """Let the others go on for some steps."""
        assert self._running is not None
        self._running.asleep_until = self.steps + steps
        self.step()

    def join(self, other: Actor) -> None:
        """Let the others go on until one of them is done."""
        while not other.done:
            self.running.joins = other
            self.sleep(MOST_STEPS)

    def wake(self, actor: Actor) -> None:
        """Let an actor that sleeps go on."""
        actor.asleep_until = self.steps

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
        if self._late:
            self._deliver_late(self.steps)
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
        until = self.steps + 1 + int(self.rng.expovariate(1 / length))
        process = self._running.process
        threads = [actor for actor in self._actors if actor.process is process]
        for actor in threads if self.rng.random() < 0.7 else [self._running]:
            actor.asleep_until = until

    def _kill(self) -> None:
        assert self._running is not None
        self.happened["kills"] += 1
        self._running.process.killed = True
        self._running.process.asleep_until = self.steps
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
            return self._actors[0]
        awake = [a for a in self._actors if a.asleep_until <= self.steps]
        if not awake:
            first = min(self._actors, key=lambda a: a.asleep_until)
            self.milliseconds += int(STEP_MILLISECONDS * (first.asleep_until - self.steps))
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
                    if actor.process is not actor:
                        break
                    actor.killed = False
                    actor.lives += 1
                    actor.asleep_until = self.steps + self.rng.randrange(40)
                    self._hand_over(actor)
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is what the run found
            if self.failure is None:
                self.failure, self.failed_actor = error, str(actor)
        actor.done = True
        self._actors.remove(actor)
        for waiting in self._actors:
            if waiting.joins is actor:
                self.wake(waiting)
        if self._actors:
            self._running = self._next(self._actors[0])
            self._running.turn.release()
        else:
            self._all_done.release()
