"""What matches a filter: by brute force over JSON values, and over records as the write script leaves them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_hash.errors import UsageError
from stream_hash.service.filters import MAX_CONDITIONS, MAX_KEY_BYTES, Filter, same
from stream_hash.settings import label_text, metadata_text
from stream_hash.storage.codec import Record, decode_record

TEXTS = st.one_of(
    st.sampled_from(["", "red", "7", "a/b", 'a"b', "a\\b", "true", "é", "\x7f", "\n", "07"]), st.text(max_size=4)
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.sampled_from([1.0, -7.0]), TEXTS)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2))
LABELS = st.one_of(TEXTS, st.integers(-99, 99))


def stored(label: Any, metadata: Any) -> bytes:
    """A record as cjson writes it: what Python escapes, and a slash and DEL as well."""
    values = ["3", "12", label_text(label), "12", metadata_text(metadata)]
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return text.replace("/", "\\/").replace("\x7f", "\\u007f").encode()


def matches(wanted: Filter | None, label: Any = None, metadata: Any = None) -> bool:
    assert wanted is not None
    raw = stored(label, metadata)
    found = bool(wanted.matching([(b"id", raw), (b"gone", None)]))
    assert found == wanted.matches(decode_record(raw)), "the bytes and the record disagree"
    return found


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(TEXTS, VALUES, max_size=3), st.data())
def test_metadata_match_by_their_json_values_whatever_stands_in_them(metadata: dict[str, Any], data: Any) -> None:
    keys = st.sampled_from(sorted(metadata)) if metadata else TEXTS
    key = data.draw(st.one_of(keys, TEXTS))
    value = data.draw(st.one_of(st.just(metadata.get(key)), VALUES))
    expected = key in metadata and plain(metadata[key]) == plain(value)
    assert matches(Filter.of({key: value}), None, metadata) == expected


def plain(value: Any) -> str:
    """A text for each JSON value, the same for 1 and 1.0."""
    whole = json.loads(json.dumps(value), parse_float=lambda text: int(float(text)))
    return json.dumps(whole, sort_keys=True)


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.none(), LABELS, st.lists(LABELS, min_size=1, max_size=3)), LABELS)
def test_a_label_matches_when_it_is_equal_or_one_of_several(label: Any, asked: Any) -> None:
    own = label if isinstance(label, list) else [label]
    for wanted in [asked, *(one for one in own if one is not None)]:
        expected = any(type(one) is type(wanted) and one == wanted for one in own)
        assert matches(Filter.of(label=wanted), label) == expected
    if isinstance(label, list):
        assert matches(Filter.of(label=label), label)
        assert not matches(Filter.of(label=[*label, "not there"]), label)


@pytest.mark.parametrize(
    ("text", "found", "not_found"),
    [
        ("page=7", ["7", 7, 7.0], [70, "07", [7], True, None]),
        ('page="7"', ["7", '"7"'], [7]),
        ("page=true", [True, "true"], [1, "True"]),
        ("page=null", [None, "null"], [0, ""]),
        ("page=red", ["red"], ["Red", ["red"], "redder"]),
        ("page=", [""], [None, " "]),
        ("page=a=b", ["a=b"], ["a"]),
        ("page=[1, 2]", [[1, 2], "[1, 2]"], [[2, 1], "[1,2]"]),
        ("page=NaN", ["NaN"], [0]),
        ("page=1e999", ["1e999"], [1]),
    ],
)
def test_a_text_stands_for_itself_and_for_the_json_value_it_is(
    text: str, found: list[Any], not_found: list[Any]
) -> None:
    wanted = Filter.of_texts([text])
    assert [matches(wanted, None, {"page": value, "n": 1}) for value in found] == [True] * len(found)
    assert [matches(wanted, None, {"page": value, "n": 1}) for value in not_found] == [False] * len(not_found)
    assert not matches(wanted, "page", None)
    assert not matches(wanted, None, {"other": {"page": found[0]}})


def test_a_label_given_as_text_stands_for_the_text_and_for_the_whole_number() -> None:
    seven = Filter.of_texts(labels=["7"])
    assert [matches(seven, label) for label in (7, "7", [1, 7], 17, 77, "x7", [70, 71])] == [True] * 3 + [False] * 4
    assert [matches(Filter.of_texts(labels=['"7"']), label) for label in ("7", 7)] == [True, False]
    assert not matches(Filter.of_texts(labels=["7.0"]), 7)
    assert not matches(Filter.of_texts(labels=["null"]), None)
    assert not matches(Filter.of_texts(labels=["true"]), 1)


def test_all_conditions_must_hold_those_of_one_key_as_well() -> None:
    wanted = Filter.of_texts(["a=1", "b=x"], ["cat"])
    assert matches(wanted, ["cat", "dog"], {"a": 1, "b": "x"})
    assert not matches(wanted, "dog", {"a": 1, "b": "x"})
    assert not matches(wanted, "cat", {"a": 2, "b": "x"})
    assert not matches(Filter.of_texts(["a=1", "a=2"]), None, {"a": 1})
    assert not matches(Filter.of({"a": "1"}), None, {"a": 1})
    assert matches(Filter.of({"a": (1, 2)}, np.int64(3)), 3, {"a": [1, 2.0]})


def test_letters_that_are_written_as_escapes_are_found_all_the_same() -> None:
    """As no writer of ours does, but a batch is JSON that may come from anyone."""
    raw = json.dumps(["3", "12", '"\\u0063at"', "12", '{"\\u0061":"\\u0062"}']).encode()
    for wanted in (Filter.of(label="cat"), Filter.of({"a": "b"})):
        assert wanted is not None
        assert wanted.matching([(b"id", raw)])


def test_an_id_without_an_item_matches_nothing() -> None:
    wanted = Filter.of(label="cat")
    assert wanted is not None
    assert not wanted.matches(Record(None, 1, '"cat"', 1, ""))


def test_nothing_asked_is_no_filter() -> None:
    assert Filter.of() is Filter.of({}) is Filter.of_texts() is None


def test_numbers_are_equal_by_value_and_truth_values_are_none() -> None:
    assert same(1, 1.0)
    assert same({"a": [1, None]}, {"a": [1.0, None]})
    assert not any(same(*pair) for pair in ((1, True), (0, None), ("1", 1), ([1], [1, 1]), ({"a": 1}, {"b": 1})))


@pytest.mark.parametrize(
    ("where", "label", "said"),
    [
        ("colour=red", None, ["'colour=red'", "no mapping", "dict"]),
        ({7: 1}, None, ["7", "text"]),
        ({"k" * 300: 1}, None, ["kkk", "300", str(MAX_KEY_BYTES), "shorten"]),
        ({"a": "x" * 9_000}, None, ["xxx", "8192"]),
        ({"a": float("nan")}, None, ["nan", "no such number"]),
        ({"a": object()}, None, ["object", "no JSON form"]),
        ({"a": "\ud800"}, None, ["no JSON form"]),
        (None, 1.5, ["1.5", "whole number"]),
        (None, True, ["True", "whole number"]),
        (None, [], ["[]", "no label"]),
        (None, [["a"]], ["['a']", "list"]),
        (None, "x" * 2_000, ["xxx", "1024"]),
        ({str(i): i for i in range(17)}, None, ["17 conditions", str(MAX_CONDITIONS)]),
    ],
)
def test_a_filter_that_can_match_nothing_is_refused_with_its_value_the_reason_and_a_remedy(
    where: Any, label: Any, said: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        Filter.of(where, label)
    error = caught.value
    assert error.remedy
    for part in said:
        assert part in f"{error} {error.why} {error.remedy}"


@pytest.mark.parametrize("text", ["red", "=red", "=", ""])
def test_a_text_without_key_or_equals_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the filter on metadata is") as caught:
        Filter.of_texts([text])
    assert "KEY=VALUE" in caught.value.remedy


def test_absurd_texts_stand_for_themselves() -> None:
    for value in ("[" * 4_000, "9" * 5_000, '{"a":' * 20 + "1" + "}" * 20):
        assert matches(Filter.of_texts([f"a={value}"]), None, {"a": value})
