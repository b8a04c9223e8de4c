"""The models of an index's generations: published once, never changed, checked at each load.

The first generation is published here, by whoever comes first; the later ones by the trainer (trainer_state.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from stream_hash.errors import ModelMissingError
from stream_hash.storage.codec import decode_model, encode_model
from stream_hash.storage.connection import Client
from stream_hash.storage.generations import another
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.scripts import Scripts


@dataclass(frozen=True)
class GenerationRecord:
    """What is known of a generation beside its model.

    created : Unix seconds. parent : the generation it continues. origin : for a rollback, the generation whose
    model it is. figures : what was measured when it was made; JSON values.
    """

    generation: int
    sha256: str
    kind: str
    created: float
    parent: int | None = None
    origin: int | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """All but the number, which is its key."""
        fields = asdict(self)
        del fields["generation"]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, generation: int, text: bytes) -> GenerationRecord:
        """The record that `to_json` wrote."""
        return cls(generation, **json.loads(text))


class Models:
    """The published models of one index."""

    def __init__(self, client: Client, index: str, *, scripts: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._keys = IndexKeys(index)
        self._scripts = Scripts(client, scripts)

    def publish(
        self, nonce: str, generation: int, arrays: Mapping[str, NDArray[Any]], *, kind: str, created: float
    ) -> GenerationRecord | None:
        """Publish `arrays` as the model of `generation`, unless one stands already.

        nonce : of the index it is for. Returns what stands; None when the generation was forgotten since. Raises
        IndexMissingError when the index was wiped, be it that it was created anew.
        """
        raw, sha256 = encode_model(arrays)
        text = GenerationRecord(generation, sha256, kind, created).to_json()
        keys = [self._keys.generations, self._keys.model(generation)]
        standing = self._scripts("publish", keys, [generation, text, raw, nonce])
        if standing == b"ANOTHER":
            raise another(self._keys.index)
        return None if standing is None else GenerationRecord.from_json(generation, standing)

    def restore(self, nonce: str, record: GenerationRecord, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Publish a model under the record that it had elsewhere; False when another model stands there.

        nonce : of the index that is being imported. The record's checksum is taken anew. To be called by ascending
        generation. Raises IndexMissingError when the import was given up.
        """
        raw, sha256 = encode_model(arrays)
        text = replace(record, sha256=sha256).to_json()
        keys = [self._keys.generations, self._keys.model(record.generation)]
        standing = self._scripts("publish", keys, [record.generation, text, raw, nonce])
        if standing == b"ANOTHER":
            raise another(self._keys.index)
        return standing is not None and GenerationRecord.from_json(record.generation, standing).sha256 == sha256

    def load(self, generation: int) -> dict[str, NDArray[Any]]:
        """The arrays of a generation's model.

        Raises ModelMissingError when there are none, IntegrityError when they are damaged.
        """
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hget(self._keys.generations, generation)
        pipeline.get(self._keys.model(generation))
        text, raw = pipeline.execute()
        if text is None or raw is None:
            raise ModelMissingError(
                f"the model of generation {generation} of index {self._keys.index!r} is missing",
                why="a partition names it as its own",
                remedy="restore the index from a backup, or ingest it anew under another name",
            )
        return decode_model(raw, GenerationRecord.from_json(generation, text).sha256)

    def records(self) -> list[GenerationRecord]:
        """All published generations, oldest first."""
        stored = self._client.hgetall(self._keys.generations)
        return sorted(
            (GenerationRecord.from_json(int(generation), text) for generation, text in stored.items()),
            key=lambda r: r.generation,
        )
