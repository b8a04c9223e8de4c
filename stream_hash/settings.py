"""What an index is made of, and the limits every item keeps.

`IndexSettings` is chosen once, at `create`, and stored with the index; nothing in it changes later.
"""

from __future__ import annotations

import json
import math
import operator
import re
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral
from typing import Any, Final, Literal, TypeAlias, cast

from stream_hash.errors import InvalidItemError, UsageError

Metric: TypeAlias = Literal["cosine", "l2", "inner"]
VectorType: TypeAlias = Literal["float32", "float16"]
Label: TypeAlias = "str | int | list[str | int]"
"""A class an item belongs to, or a list of several."""

MAX_ID_BYTES: Final = 128
MAX_LABEL_BYTES: Final = 1_024
MAX_METADATA_BYTES: Final = 8_192
MAX_METADATA_DEPTH: Final = 16
MAX_DIMENSION: Final = 16_384
MAX_BITS: Final = 62
MAX_TABLES: Final = 64
MAX_PARTITIONS: Final = 1_024
MAX_BATCH_ITEMS: Final = 10_000
MAX_BATCH_BYTES: Final = 64 * 1024 * 1024
"""Of a batch's vectors."""
MAX_PAYLOAD_BYTES: Final = 192 * 1024 * 1024
"""Of a batch as it is stored: vectors, and ids, labels and metadata as long as they may be."""
MAX_RESULTS: Final = 10_000
MAX_CANDIDATES: Final = 1 << 24
"""Of a budget or a fetch: the items of a full partition."""

SIGNATURE_BITS: Final = 39
NUMBER_BITS: Final = 24
"""A member is 39 signature bits above a 24-bit item number: 63 bits, a positive signed integer."""

BUCKET_LEAST: Final = 8
BUCKET_MOST: Final = 32
"""A mean of so many members a bucket is searched fastest: a bucket costs the server as much as five members, and is a
key and an entry of the directory besides; beyond it, more is gathered than was asked for."""

NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Names of indexes and batches: they appear in Redis keys, hash tags and RQ job ids."""


@dataclass(frozen=True)
class IndexSettings:
    """The settings of one index.

    dimension: coordinates of a vector. bits: hyperplanes a table, 1 to 62. tables: independent hash
    tables. metric: what ranks results, larger is nearer (`l2` is the negated Euclidean distance).
    dtype: how vectors are stored; all arithmetic is float32 or better. partitions: units of placement,
    one hash slot each. seed: of the Gaussian hyperplanes of generation 1 and of the signature.
    """

    dimension: int
    bits: int = 16
    tables: int = 1
    metric: Metric = "cosine"
    dtype: VectorType = "float32"
    partitions: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("dimension", 1, MAX_DIMENSION),
            ("bits", 1, MAX_BITS),
            ("tables", 1, MAX_TABLES),
            ("partitions", 1, MAX_PARTITIONS),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if not _is_whole(value) or not low <= value <= high:
                raise UsageError(
                    f"{name} is {reprlib.repr(value)}",
                    why=f"it must be a whole number from {low} to {high}",
                    remedy=f"choose another {name}",
                )
            object.__setattr__(self, name, operator.index(value))  # numpy's integers have no JSON form
        for name, allowed in (("metric", ("cosine", "l2", "inner")), ("dtype", ("float32", "float16"))):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                raise UsageError(
                    f"{name} is {reprlib.repr(value)}",
                    why=f"it must be one of {', '.join(allowed)}",
                    remedy="choose one",
                )

    @classmethod
    def for_items(
        cls,
        dimension: int,
        items: int,
        *,
        tables: int = 1,
        metric: Metric = "cosine",
        dtype: VectorType = "float32",
        partitions: int = 1,
        seed: int = 0,
    ) -> IndexSettings:
        """Settings whose bits suit an index that is expected to hold so many items. Raises UsageError."""
        settings = cls(dimension, tables=tables, metric=metric, dtype=dtype, partitions=partitions, seed=seed)
        return replace(settings, bits=bits_for(items, settings.partitions))

    def to_json(self) -> str:
        """The settings as a JSON object with sorted keys: equal settings are equal texts."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> IndexSettings:
        values = json.loads(text)
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    def differences(self, other: IndexSettings) -> str:
        """The settings in which two indexes differ, as `bits 16, not 8`; empty when they are equal."""
        mine, theirs = asdict(self), asdict(other)
        return ", ".join(f"{name} {mine[name]}, not {theirs[name]}" for name in mine if mine[name] != theirs[name])


def bits_for(items: int, partitions: int = 1) -> int:
    """The bits with which so many items, spread over these partitions, have a mean bucket of 8 to 32 members.

    Were they spread evenly over all codes the mean would be 8 to 16. Real items leave codes empty, and the buckets that
    are not hold up to twice as many. Fewer than 16 items a partition have 1 bit, whatever the mean. Raises UsageError.
    """
    most = partitions << NUMBER_BITS
    if not _is_whole(items) or not 1 <= items <= most:
        raise UsageError(
            f"the number of items is {reprlib.repr(items)}",
            why=f"it must be a whole number from 1 to {most}, {1 << NUMBER_BITS} a partition",
            remedy="choose another number, or more partitions",
        )
    return max(1, (operator.index(items) // (partitions * BUCKET_LEAST)).bit_length() - 1)


def check_name(name: object, what: str = "index name") -> str:
    """`name` itself when it may be used in a key.

    Raises UsageError otherwise: a brace or a colon would change which hash slot a key falls in.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError(
            f"the {what} is {reprlib.repr(name)}",
            why="a name has 1 to 64 letters, digits, underscores and dashes",
            remedy="choose another name",
        )
    return name


def check_id(item_id: object) -> str:
    """`item_id` itself when it is text of 1 to 128 UTF-8 bytes. Raises InvalidItemError otherwise."""
    if isinstance(item_id, str) and item_id.isascii() and 1 <= len(item_id) <= MAX_ID_BYTES:
        return item_id  # nearly all of them: as many bytes as characters
    if not isinstance(item_id, str):
        raise InvalidItemError(
            f"an item's id is {reprlib.repr(item_id)}", why="an id is text", remedy="convert the id to a string"
        )
    try:
        length = len(item_id.encode())
    except UnicodeEncodeError as error:
        raise InvalidItemError(
            f"an item's id is {reprlib.repr(item_id)}", why="it has no UTF-8 form", remedy="give the item another id"
        ) from error
    if not 1 <= length <= MAX_ID_BYTES:
        shown = item_id if length <= MAX_ID_BYTES else item_id[:32] + "…"
        raise InvalidItemError(
            f"an item's id is {shown!r}, {length} bytes long",
            why=f"an id has 1 to {MAX_ID_BYTES} UTF-8 bytes",
            remedy="shorten the id, or hash it",
        )
    return item_id


def label_text(label: object) -> str:
    """A label as JSON text, empty for none. Raises InvalidItemError on what is not a label."""
    if label is None:
        return ""
    members = label if isinstance(label, list) else [label]
    if not members or not all(isinstance(m, str) or _is_whole(m) for m in members):
        raise InvalidItemError(
            f"a label is {reprlib.repr(label)}",
            why="a label is text, a whole number, or a list of these",
            remedy="convert it",
        )
    plain = [m if isinstance(m, str) else operator.index(cast("int", m)) for m in members]
    return _bounded_json(plain if isinstance(label, list) else plain[0], "label", MAX_LABEL_BYTES)


def _is_whole(value: object) -> bool:
    """Whether `value` is a whole number: numpy's count, and truth values do not."""
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def metadata_text(metadata: object) -> str:
    """Metadata as JSON text, empty for none. Raises InvalidItemError on what is no bounded JSON object."""
    if metadata is None:
        return ""
    if not isinstance(metadata, Mapping):
        raise InvalidItemError(
            f"an item's metadata is {reprlib.repr(metadata)}",
            why="metadata is a JSON object",
            remedy="wrap it in one",
        )
    _check_depth(metadata, MAX_METADATA_DEPTH)
    return _bounded_json(dict(metadata), "metadata", MAX_METADATA_BYTES)


def parse_label(text: str | bytes) -> Label | None:
    """The label that `label_text` wrote."""
    return cast("Label", json.loads(text)) if text else None


def parse_metadata(text: str | bytes) -> dict[str, Any] | None:
    """The metadata that `metadata_text` wrote."""
    return cast("dict[str, Any]", json.loads(text)) if text else None


_JSON: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
"""Built once: `json.dumps` with these arguments builds one for every label."""


def _bounded_json(value: object, what: str, limit_bytes: int) -> str:
    try:
        text = _JSON.encode(value)
        length = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidItemError(
            f"an item's {what} is {reprlib.repr(value)}",
            why=f"it has no JSON form: {error}",
            remedy=f"mend the {what}",
        ) from error
    if length > limit_bytes:
        raise InvalidItemError(
            f"an item's {what} is {length} bytes of JSON",
            why=f"the limit is {limit_bytes}",
            remedy=f"store the rest of the {what} elsewhere, under the item's id",
        )
    return text


def _check_depth(value: object, levels: int) -> None:
    """Refuse nesting deeper than `levels` without recursing deeper than that ourselves."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidItemError(
            f"an item's metadata holds {value}", why="JSON has no such number", remedy="leave the field out"
        )
    if not isinstance(value, (Mapping, list)):
        return
    if levels == 0:
        raise InvalidItemError(
            "an item's metadata is nested too deeply",
            why=f"the limit is {MAX_METADATA_DEPTH} levels",
            remedy="flatten it",
        )
    for child in value.values() if isinstance(value, Mapping) else value:
        _check_depth(child, levels - 1)
