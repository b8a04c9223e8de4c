"""Filters: what label and metadata an item must have to be among the answers.

1. A *condition* names a metadata key, or the label, and a value, or several of which one is enough. A filter's
   conditions must all hold.
2. Metadata matches when it has the key, at its top level, with an equal JSON value: 1 and 1.0 are equal, "1" and 1 and
   true are three values, lists are equal element by element, objects key by key. A list is not searched for a value.
3. A label matches when it is equal, or one of the item's several. Text and whole numbers are different labels.
4. What comes as text, from a command line, cannot say which it means: `7` stands for the text and for the number,
   `red` for the text alone, `"7"` for that text and for the text with its quotes.

Most records that are read do not match. `may_match` finds most of these without parsing them, by what must stand in
their bytes (write.lua writes them): JSON has one form of a character that is neither escaped nor non-ASCII, but for
`\\u`, and a record with that is always parsed.
"""

from __future__ import annotations

import contextlib
import json
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

from stream_hash.errors import InvalidItemError, UsageError
from stream_hash.settings import label_text, metadata_text, parse_label, parse_metadata
from stream_hash.storage.codec import Record, decode_record

MAX_CONDITIONS: Final = 16
MAX_KEY_BYTES: Final = 256

_UNESCAPED: Final = re.compile(r'[^"\\/\x00-\x1f\x7f]+')
"""Characters that are written as themselves, by Python's json and by Lua's cjson."""


@dataclass(frozen=True)
class Condition:
    """key : of the metadata; None for the label. values : JSON values of which it must have one."""

    key: str | None
    values: tuple[Any, ...]

    def holds(self, label: Sequence[str | int], metadata: Mapping[str, Any]) -> bool:
        """Whether an item meets it. label : its labels, none or several."""
        if self.key is None:
            return any(same(own, value) for own in label for value in self.values)
        return self.key in metadata and any(same(metadata[self.key], value) for value in self.values)


@dataclass(frozen=True)
class Filter:
    """Conditions, all of which must hold."""

    conditions: tuple[Condition, ...]

    @classmethod
    def of(cls, where: object = None, label: object = None) -> Filter | None:
        """What Python's callers give; None when that is nothing. where : {key: value}, or a Filter.

        label : one, or a list of which an item must have all. Raises UsageError for what can match no item.
        """
        given = where.conditions if isinstance(where, Filter) else tuple(_of_mapping(where))
        labels = label if isinstance(label, list) else [] if label is None else [label]
        if isinstance(label, list) and not label:
            raise _refused("label", label, "it names no label", "give one, or leave it out")
        return cls._bounded([*given, *(Condition(None, (_label(one),)) for one in labels)])

    @classmethod
    def of_texts(cls, where: Iterable[str] = (), labels: Iterable[str] = ()) -> Filter | None:
        """What a command line gives: `key=value`, parted at the first =, and labels. Raises UsageError."""
        conditions = []
        for text in where:
            key, equals, value = text.partition("=")
            if not equals or not key:
                why = "it has no =" if not equals else "no key stands before the ="
                raise _refused("metadata", text, why, "write it as KEY=VALUE")
            conditions.append(Condition(key, _readings(value, partial(_metadata, key))))
        conditions += [Condition(None, _readings(text, _label)) for text in labels]
        return cls._bounded(conditions)

    @classmethod
    def _bounded(cls, conditions: Sequence[Condition]) -> Filter | None:
        if len(conditions) > MAX_CONDITIONS:
            raise UsageError(
                f"the filter has {len(conditions)} conditions",
                why=f"the limit is {MAX_CONDITIONS}",
                remedy="leave some out, or store what they ask for as one label",
            )
        return cls(tuple(conditions)) if conditions else None

    @cached_property
    def text(self) -> str:
        """Equal for filters that are written alike."""
        return json.dumps([[one.key, one.values] for one in self.conditions], sort_keys=True)

    def matches(self, record: Record) -> bool:
        """Whether a record is that of an item which meets all conditions."""
        if record.number is None:
            return False
        # what no condition asks for is not parsed
        label = parse_label(record.label) if self._asks_label else None
        labels = label if isinstance(label, list) else [] if label is None else [label]
        metadata = parse_metadata(record.metadata) or {} if self._asks_metadata else {}
        return all(one.holds(labels, metadata) for one in self.conditions)

    @cached_property
    def _asks_label(self) -> bool:
        return any(one.key is None for one in self.conditions)

    @cached_property
    def _asks_metadata(self) -> bool:
        return any(one.key is not None for one in self.conditions)

    def matching(self, texts: Iterable[tuple[bytes, bytes | None]]) -> list[tuple[str, Record]]:
        """(id, record) of those that match. texts : ids, and records as they are stored; None for none."""
        decoded = (
            (item_id.decode(), decode_record(text)) for item_id, text in texts if text is not None and self._may(text)
        )
        return [(item_id, record) for item_id, record in decoded if self.matches(record)]

    def _may(self, text: bytes) -> bool:
        """Whether a record may match, as its bytes tell."""
        if b"\\u" in text:
            return True
        literals, patterns = self._signs
        return all(one in text for one in literals) and all(one.search(text) for one in patterns)

    @cached_property
    def _signs(self) -> tuple[list[bytes], list[re.Pattern[bytes]]]:
        """What stands in every record that matches."""
        literals, patterns = [], []
        for condition in self.conditions:
            signs = [_sign(value, whole=condition.key is None) for value in condition.values]
            if condition.key is not None:
                literals.append(_literal(condition.key))
            if len(signs) == 1 and isinstance(condition.values[0], str):
                literals.append(_literal(condition.values[0]))
            elif all(signs):
                patterns.append(re.compile(b"|".join(signs)))
        return [one for one in literals if one], patterns


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal (rule 2)."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)):
        return isinstance(other, (int, float)) and one == other
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return type(one) is type(other) and bool(one == other)


def _literal(text: str) -> bytes:
    """What a text leaves in the bytes of a record, where it is JSON within JSON."""
    runs = _UNESCAPED.findall(text)
    return b'\\"' + text.encode() + b'\\"' if runs == [text] else max(runs, key=len, default="").encode()


def _sign(value: Any, *, whole: bool) -> bytes:
    """A pattern of what a value leaves in the bytes of a record; empty when nothing is certain.

    whole : whether numbers are whole ones, written in digits alone, as labels are.
    """
    if isinstance(value, str):
        return re.escape(_literal(value))
    if isinstance(value, bool) or value is None:
        return json.dumps(value).encode()
    if whole:
        digits = str(value).encode()
        return digits + rb"(?<![0-9]" + digits + rb")(?![0-9])"  # in this order a search goes from digit to digit
    return b""


def _of_mapping(where: object) -> Iterable[Condition]:
    if where is None:
        return
    if not isinstance(where, Mapping):
        raise _refused("metadata", where, "it is no mapping", "give a dict: {key: value}")
    for key, value in where.items():
        yield Condition(key, (_metadata(key, value),))


def _metadata(key: object, value: object) -> Any:
    """The value as JSON knows it, of a key that may be one. Raises UsageError."""
    if not isinstance(key, str):
        raise _refused("metadata", key, "a key is text", "convert it")
    size = len(key.encode(errors="replace"))
    if size > MAX_KEY_BYTES:
        raise _refused("metadata", key, f"the key is {size} bytes long, and the limit is {MAX_KEY_BYTES}", "shorten it")
    try:
        return json.loads(metadata_text({key: value}))[key]
    except InvalidItemError as error:
        why = f"no item can have it: {error}; {error.why}"
        raise _refused("metadata", {key: value}, why, "ask for a value that can be stored") from error


def _label(value: object) -> str | int:
    """Raises UsageError for what is no single label."""
    if isinstance(value, list):
        raise _refused("label", value, "a label in a list is text or a whole number", "give the list's elements")
    try:
        known: str | int = json.loads(label_text(value))
    except (InvalidItemError, ValueError) as error:
        why = f"{error}; {error.why}" if isinstance(error, InvalidItemError) else "it is no label"
        raise _refused("label", value, f"no item can have it: {why}", "ask for a label that can be stored") from error
    return known


def _readings(text: str, checked: Callable[[Any], Any]) -> tuple[Any, ...]:
    """What a text may mean (rule 4): itself, and the JSON value that it is, if an item can have that."""
    found = [checked(text)]
    with contextlib.suppress(ValueError, RecursionError, UsageError):  # then it means nothing but itself
        found.append(checked(json.loads(text)))
    return tuple(found)


def _refused(what: str, value: object, why: str, remedy: str) -> UsageError:
    return UsageError(f"the filter on {what} is {reprlib.repr(value)}", why=why, remedy=remedy)
