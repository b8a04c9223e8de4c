"""Publishing a model: a new one, or one that was live before; and forgetting the oldest.

A rollback is somebody's will, and the schedule must not undo it at once: it is recorded among the runs of training, in
the script that makes the old model the target. So labels and the interval count from the rollback (training_runs.due),
what was wished before it is void, and so is a drop that a generation before it brought about (quality.fold).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from stream_hash.clock import now_seconds
from stream_hash.errors import ModelMissingError
from stream_hash.service.handle import IndexHandle
from stream_hash.service.training_runs import TrainingRun
from stream_hash.storage.models import GenerationRecord


def live_generation(handle: IndexHandle) -> int:
    """The newest generation that is live in any partition; 0 for none. Reads the states anew."""
    handle.reload_states()
    return max(state.live for state in handle.states)


def publish(
    handle: IndexHandle,
    token: int,
    arrays: Mapping[str, NDArray[Any]],
    *,
    kind: str,
    parent: int,
    origin: int | None = None,
    figures: Mapping[str, Any] | None = None,
    run: TrainingRun | None = None,
) -> int:
    """Publish a model as the target, forget those beyond the newest ten, and return its number.

    run : its record, without the number; it is kept at once with the model. Raises FencedError when a newer token was
    given out.
    """
    record = handle.trainer.publish(
        token,
        arrays,
        kind=kind,
        created=now_seconds(),
        parent=parent,
        origin=origin,
        figures=figures,
        run=None if run is None else run.to_dict(),
    )
    forget_old(handle, token)
    return record.generation


def forget_old(handle: IndexHandle, token: int) -> list[int]:
    """Forget the generations beyond the newest ten that nothing uses; returns which. Raises as `publish`.

    None are while a partition is still to begin with the first: it cannot take note of the token.
    """
    in_use: set[int] = set()
    for partition in range(handle.settings.partitions):
        # The fence first: who was paused before it began what is to be forgotten here must not begin it afterwards.
        used = handle.generations.fence(partition, token)
        if used is None:
            return []
        in_use |= used
    return handle.trainer.forget(token, in_use)


def rollback(handle: IndexHandle, token: int, generation: int) -> int:
    """Publish the model of a kept generation again, under a new number, which is returned; it is the target then.

    It goes live by a re-index, as any other. If that model is the target already, nothing changes, and its number is
    returned. Raises ModelMissingError when the generation is not kept, FencedError when a newer token was given out.
    """
    kept: dict[int, GenerationRecord] = {record.generation: record for record in handle.models.records()}
    if generation not in kept:
        raise ModelMissingError(
            f"generation {generation} of index {handle.name!r} is not kept",
            why=f"those that are: {', '.join(map(str, kept)) or 'none'}",
            remedy=f"stream-hash generations {handle.name}",
        )
    record, parent = kept[generation], live_generation(handle)
    origin = record.origin or generation
    run = TrainingRun(
        id=f"rollback {token}",  # the lease was taken for it alone
        started=now_seconds(),
        seconds=0.0,
        learner=record.kind,
        parent=parent,
        generation=None,
        trained=0,
        held_out=0,
        classes=0,
        decision="rolled back",
        reason=f"somebody went back to the model of generation {origin}",
        asked="asked for",
        seen=handle.ledger.horizon() - 1,
    )
    return publish(
        handle,
        token,
        handle.models.load(generation),
        kind=record.kind,
        parent=parent,
        origin=origin,
        figures=record.figures,
        run=run,
    )
