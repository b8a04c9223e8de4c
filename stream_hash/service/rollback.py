"""Publishing a model: a new one, or one that was live before; and forgetting the oldest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from stream_hash.clock import now_seconds
from stream_hash.errors import ModelMissingError
from stream_hash.service.handle import FIRST_GENERATION, IndexHandle
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
) -> int:
    """Publish a model as the target, forget those beyond the newest ten, and return its number.

    Raises FencedError when a newer token was given out.
    """
    record = handle.trainer.publish(
        token, arrays, kind=kind, created=now_seconds(), parent=parent, origin=origin, figures=figures
    )
    forget_old(handle, token)
    return record.generation


def forget_old(handle: IndexHandle, token: int) -> list[int]:
    """Forget the generations beyond the newest ten that nothing uses; returns which. Raises as `publish`."""
    handle.reload_states()
    in_use = {generation for state in handle.states for generation in state.writable}
    in_use |= {generation for retiring in handle.generations.retiring() for generation in retiring}
    if not all(state.live for state in handle.states):
        in_use.add(FIRST_GENERATION)  # a partition without any begins with that
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
    record = kept[generation]
    return publish(
        handle,
        token,
        handle.models.load(generation),
        kind=record.kind,
        parent=live_generation(handle),
        origin=record.origin or generation,
        figures=record.figures,
    )
