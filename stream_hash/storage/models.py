"""The models of an index's generations: published once, never changed, checked at each load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from stream_hash.errors import IntegrityError
from stream_hash.storage.codec import decode_model, encode_model
from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.scripts import Scripts


@dataclass(frozen=True)
class GenerationRecord:
    """What is known of a generation beside its model. created : Unix seconds."""

    generation: int
    sha256: str
    kind: str
    created: float


class Models:
    """The published models of one index."""

    def __init__(self, client: Client, index: str, *, scripts: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._keys = IndexKeys(index)
        self._scripts = Scripts(client, scripts)

    def publish(
        self, generation: int, arrays: Mapping[str, NDArray[Any]], *, kind: str, created: float
    ) -> GenerationRecord:
        """Publish `arrays` as the model of `generation`, unless one stands already. Returns what stands."""
        raw, sha256 = encode_model(arrays)
        text = json.dumps({"sha256": sha256, "kind": kind, "created": created}, sort_keys=True)
        keys = [self._keys.generations, self._keys.model(generation)]
        return _record(generation, self._scripts("publish", keys, [generation, text, raw]))

    def load(self, generation: int) -> dict[str, NDArray[Any]]:
        """The arrays of a generation's model. Raises IntegrityError when they are missing or damaged."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hget(self._keys.generations, generation)
        pipeline.get(self._keys.model(generation))
        text, raw = pipeline.execute()
        if text is None or raw is None:
            raise IntegrityError(
                f"the model of generation {generation} of index {self._keys.index!r} is missing",
                why="a partition names it as its own",
                remedy="restore the index from a backup, or ingest it anew under another name",
            )
        return decode_model(raw, _record(generation, text).sha256)

    def records(self) -> list[GenerationRecord]:
        """All published generations, oldest first."""
        stored = self._client.hgetall(self._keys.generations)
        return sorted(
            (_record(int(generation), text) for generation, text in stored.items()),
            key=lambda r: r.generation,
        )


def _record(generation: int, text: bytes) -> GenerationRecord:
    fields = json.loads(text)
    return GenerationRecord(generation, fields["sha256"], fields["kind"], fields["created"])
