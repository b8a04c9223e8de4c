"""The trainer processes of a simulated deployment: the product's own, who look, are asked, and roll back; and strays.

What they learn is drawn (stand_ins.py). That they are killed, paused and overtaken by each other, with one of their
threads or all of them, is the scheduler's affair.
"""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace

import numpy as np
import stand_ins
from actors import World
from simulation import Actor
from stand_ins import DIMENSION

from stream_hash.clock import now_seconds
from stream_hash.errors import FencedError, ModelMissingError
from stream_hash.service.handle import IndexHandle
from stream_hash.service.schedule import Schedule, Trainers
from stream_hash.service.trainer import Cycle, StoppedError


def trainer(world: World, _: Actor) -> None:
    """Looks at the index again and again; takes requests, some of them twice; now and then somebody rolls back."""
    rng, broker = world.rng, stand_ins.broker(world.jobs)
    schedule = Schedule(interval_seconds=rng.choice([0.2, 10.0]), labels=rng.randint(1, 8))
    trainers = Trainers(SimpleNamespace(client=world.client, broker=broker), schedule)  # type: ignore[arg-type]
    trainers.stop = lambda: not world.scheduler.calm and rng.random() < 0.01
    while world.fences.leads < world.trainings:
        (what,) = rng.choices(("roll back", "request", "look"), world.habits.trainer)
        with contextlib.suppress(FencedError, StoppedError):
            if what == "roll back":
                _roll_back(world, Cycle(world.open(), broker, stop=trainers.stop))
            elif what == "request":
                trainers.asked("x", _request(world))
            else:
                if rng.random() < 0.3:
                    world.open().trainer.ask("somebody asked", now=now_seconds())
                trainers.look()
        world.scheduler.sleep(rng.randrange(70))


def _roll_back(world: World, cycle: Cycle) -> None:
    """To a kept model, which may be forgotten by the time it is read; some only say so, and leave it to the others."""
    records = world.open().models.records()
    if not records:
        return
    with contextlib.suppress(ModelMissingError):
        outcome = cycle.rollback(world.rng.choice(records).generation, reindex=world.rng.random() < 0.5)
        world.events["rollbacks"] += outcome.held is None


def _request(world: World) -> str:
    """A request to train: a new one, or one that is delivered again."""
    if not world.requests or world.rng.random() < 0.6:
        plan = {"force": world.rng.random() < 0.5, "dry_run": world.rng.random() < 0.1, "least": 1}
        world.requests.append(json.dumps({"request": f"r{len(world.requests)}", **plan}))
    return world.rng.choice(world.requests)


def stray(world: World, _: Actor) -> None:
    """Those who slept for long: they make the first generation, or go on with, let go live or give up whatever
    generation there was, at the wrong moments.
    """
    handle, rng = world.open(), world.rng
    while world.busy:
        world.scheduler.sleep(rng.randrange(world.habits.stray_steps))
        handle.reload_states()
        known = [record.generation for record in handle.models.records()]
        if known and rng.random() < 0.05:
            handle.begin_first_generation(np.empty((0, DIMENSION), np.float32))
            world.events["first generations out of turn"] += 1
            continue
        retiring = handle.generations.retiring()
        partition = rng.choice([number for number, some in enumerate(retiring) if some] or range(len(retiring)))
        under_way = [generation for state in handle.states for generation in state.writable]
        among = [some for some in (known, under_way, retiring[partition], retiring[partition]) if some]
        generation = rng.choice(rng.choice(among or [[1]]))
        for _ in range(rng.randint(1, 4)):
            with contextlib.suppress(FencedError):
                _out_of_turn(world, handle, partition, generation)
            handle.reload_states()


def _out_of_turn(world: World, handle: IndexHandle, partition: int, generation: int) -> None:
    """One command on a generation that may be anything by now, with a token that may be old."""
    rng = world.rng
    token = max(0, world.fences.newest - rng.choice([0, 0, 1]))
    past = generation <= handle.states[partition].live or generation in handle.generations.retiring()[partition]
    may = ["switch", "retire"]
    if generation == handle.trainer.target():
        may += ["begin"]
    else:
        may += ["abandon"]  # who gives up the target itself makes it unreachable, and has to publish it again
        may += ["begin"] * 3 * (past or generation == 1)  # of others the model may be forgotten by then
    what = rng.choice(may)
    if what == "retire":
        list(handle.generations.retire(partition, generation))
    else:
        getattr(handle.generations, what)(partition, generation, token)
    world.events["commands out of turn"] += 1
