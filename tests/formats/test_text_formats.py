"""jsonl and csv: each line for itself."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_hash import formats
from stream_hash.errors import FormatError
from stream_hash.formats import lines as lines_module

SINGLES = st.floats(width=32, allow_nan=False, allow_infinity=False)
LABELS = st.one_of(st.none(), st.integers(), st.text(max_size=20), st.lists(st.integers(), min_size=1, max_size=3))


def jsonl(*items: object) -> io.BytesIO:
    return io.BytesIO("".join(json.dumps(item) + "\n" for item in items).encode())


def reasons(whole, data: bytes | str, kind: str) -> dict[str, str]:
    """Why the lines of `data` are refused; one good line is put after it, which must live."""
    text = data.encode() if isinstance(data, str) else data
    good = b'{"id": "good", "vector": [1, 2]}' if kind == "jsonl" else b"good,1,2"
    head = b"" if kind == "jsonl" else b"id,v0,v1\n"
    read = whole(io.BytesIO(head + text + b"\n" + good + b"\n"), format=kind)
    assert read.ids == ["good"]
    assert read.vectors.tolist() == [[1, 2]]
    return read.rejected


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
        st.tuples(
            st.lists(SINGLES, min_size=3, max_size=3),
            LABELS,
            st.none() | st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
        ),
        min_size=1,
    ),
    st.integers(1, 5),
)
def test_any_items_survive_jsonl(items, chunk_items):
    file = jsonl(*({"id": i, "vector": v, "label": la, "metadata": m} for i, (v, la, m) in items.items()))
    chunks = list(formats.read(file, format="jsonl", chunk_items=chunk_items))
    assert [i for chunk in chunks for i in chunk.ids] == list(items)
    assert np.concatenate([chunk.vectors for chunk in chunks]).tolist() == [v for v, _, _ in items.values()]
    assert [la for chunk in chunks for la in chunk.labels] == [la for _, la, _ in items.values()]
    assert [m for chunk in chunks for m in chunk.metadata] == [m for _, _, m in items.values()]


def test_a_line_without_id_is_numbered_among_those_that_are_not_blank(whole):
    file = io.BytesIO(b'\n{"vector": [1]}\n\n   \nbroken\n{"vector": [2]}\n{"id": 7, "vector": [3]}')
    read = whole(file, format="jsonl")
    assert read.ids == ["0", "2", "7"]
    assert list(read.rejected) == ["line 5"]


def test_a_number_that_stands_in_for_an_id_may_be_taken(whole):
    read = whole(jsonl({"id": "1", "vector": [1]}, {"vector": [2]}))
    assert read.rejected == {"line 2": "id '1' already stood at line 1"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1, 2]", "an item is a JSON object"),
        ("null", "it is None"),
        ("{", "it is no JSON"),
        ('{"vector": [1, 2]} {}', "it is no JSON: Extra data"),
        ('{"vector": [1, 2],}', "it is no JSON"),
        ("{'vector': [1, 2]}", "it is no JSON"),
        ("{}", "vector is None"),
        ('{"vector": null}', "vector is None"),
        ('{"vector": 3}', "vector is 3"),
        ('{"vector": "1,2"}', "vector is '1,2'"),
        ('{"vector": {"0": 1}}', "vector is {'0': 1}"),
        ('{"vector": []}', "0 coordinates"),
        ('{"vector": [1, "2"]}', "coordinate 1 is '2'"),
        ('{"vector": [1, true]}', "coordinate 1 is True"),
        ('{"vector": [1, null]}', "coordinate 1 is None"),
        ('{"vector": [[1, 2]]}', "coordinate 0 is [1, 2]"),
        ('{"vector": [1, NaN]}', "it holds NaN: JSON has no such number"),
        ('{"vector": [1, -Infinity]}', "it holds -Infinity"),
        ('{"vector": [1, 1e999]}', "coordinate 1 is inf"),
        ('{"vector": [1, 1e39]}', "coordinate 1 is 1e+39, beyond the range of float32"),
        ('{"vector": [1, 1' + "0" * 400 + "]}", "beyond the range of float32"),
        ('{"vector": [1, 1' + "0" * 5_000 + "]}", "more digits than are read"),
        ('{"vector": [' + "1," * 16_384 + "1]}", "16,385 coordinates"),
        ('{"vector": [1, 2], "vector": [3, 4]}', "the key 'vector' twice"),
        ('{"vector": [1, 2], "metadata": {"a": 1, "a": 2}}', "the key 'a' twice"),
        ('{"vector": [1, 2], "lable": 3}', "the unknown key 'lable'"),
        ('{"vector": [1, 2], "id": null}', "id is None"),
        ('{"vector": [1, 2], "id": true}', "id is True"),
        ('{"vector": [1, 2], "id": 1.5}', "id is 1.5"),
        ('{"vector": [1, 2], "id": ["a"]}', "id is ['a']"),
        ('{"vector": [1, 2], "id": ""}', "0 bytes long"),
        ('{"vector": [1, 2], "id": "' + "x" * 129 + '"}', "129 bytes long"),
        ('{"vector": [1, 2], "id": "\\ud800"}', "no UTF-8 form"),
        ('{"vector": [1, 2], "id": 1' + "0" * 200 + "}", "201 bytes long"),
        ('{"vector": [1, 2], "label": true}', "a label is True"),
        ('{"vector": [1, 2], "label": []}', "a label is []"),
        ('{"vector": [1, 2], "label": [1, null]}', "a label is [1, None]"),
        ('{"vector": [1, 2], "label": {"a": 1}}', "a label is {'a': 1}"),
        ('{"vector": [1, 2], "label": "\\ud800"}', "no JSON form"),
        ('{"vector": [1, 2], "label": [[[1]]]}', "a label is [[[1]]]"),
        ('{"vector": [1, 2], "metadata": []}', "metadata is []"),
        ('{"vector": [1, 2], "metadata": {"a": 1e999}}', "metadata holds inf"),
        ('{"vector": [1, 2], "metadata": {"a": "' + "x" * 9_000 + '"}}', "the limit is 8192"),
        ('{"vector": [1, 2], "metadata": ' + '{"a":' * 17 + "1" + "}" * 18, "nested too deeply"),
        ('{"vector": [1, 2], "metadata": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"vector": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"vector": ' + "[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        (b'{"vector": [1, 2], "id": "\xff"}', "byte 26 is 0xff: the line is not UTF-8"),
        ('{"vector": [1, 2]}'.encode("utf-16"), "not UTF-8"),
        (b"\0\0\0", "it is no JSON"),
        (b'{"vector": [1, 2], "id": "' + b"x" * 2**20 + b'"}', "longer than 1,048,576 bytes"),
    ],
)
def test_a_broken_json_line_is_refused_with_its_reason_and_the_next_lives(line, said, whole):
    refused = reasons(whole, line, "jsonl")
    assert list(refused) == ["line 1"]
    assert said in refused["line 1"]
    assert len(refused["line 1"]) < 300


@pytest.mark.parametrize("depth", range(900, 1_000, 7))
def test_nesting_just_within_what_python_parses_is_refused_as_well(depth, whole):
    deep = "[" * depth + "]" * depth
    for key in ("id", "vector", "label", "metadata", "other"):
        assert len(reasons(whole, f'{{"{key}": {deep}}}', "jsonl")) == 1


def test_labels_that_are_left_out_are_not_looked_at(whole):
    assert whole(jsonl({"vector": [1], "label": {}}), labels=False).labels == [None]
    assert whole(io.BytesIO(b"label,a\n" + b"x" * 2_000 + b",1\n"), format="csv", labels=False).labels == [None]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_the_first_good_vector_fixes_the_dimension(kind, whole):
    if kind == "jsonl":
        file = jsonl({"vector": [1e300]}, {"vector": [1, 2]}, {"vector": [1, 2, 3]}, {"vector": [3, 4]})
    else:
        file = io.BytesIO(b"nan\n1,2\n1,2,3\n3,4\n")
    read = whole(file, format=kind)
    assert read.vectors.tolist() == [[1, 2], [3, 4]]
    assert list(read.rejected) == ["line 1", "line 3"]
    assert read.rejected["line 3"] == "its vector has 3 coordinates and the first good one has 2"


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_byte_order_mark_and_windows_line_ends_are_accepted(kind, end, whole):
    rows = (
        [b'{"id": "a", "vector": [1]}', b'{"id": "b", "vector": [2]}'] if kind == "jsonl" else [b"id,v", b"a,1", b"b,2"]
    )
    read = whole(io.BytesIO(b"\xef\xbb\xbf" + end.join(rows)), format=kind)
    assert read.ids == ["a", "b"]


@pytest.mark.parametrize("longer", [0, 1, 1_000, 70, 71])
def test_after_a_too_long_line_the_next_one_is_whole(longer, whole, monkeypatch):
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 70)
    line = b'{"vector": [1, 2]}'.ljust(69 + longer) + b"\n"
    read = whole(io.BytesIO(line + b'{"id": "next", "vector": [1, 2]}\n'))
    assert read.ids == (["0", "next"] if longer == 0 else ["next"])
    assert read.rejected == ({} if longer == 0 else {"line 1": "it is longer than 70 bytes"})


@pytest.mark.parametrize(
    ("head", "ids", "labels", "vector"),
    [
        ("id,label,v0,v1", ["a"], ["b"], [1, 2]),
        ("label,ID,v0,v1", ["b"], ["a"], [1, 2]),
        (" Id ,x,v0,v1", None, None, None),
        ("id,label,0,1", ["a"], ["b"], [1, 2]),
        ('"id","label","first, really",1', ["a"], ["b"], [1, 2]),
    ],
)
def test_a_csv_header_says_what_its_columns_are(head, ids, labels, vector, whole):
    read = whole(io.BytesIO(f"{head}\na,b,1,2\n".encode()), format="csv")
    if ids is None:
        assert read.rejected == {"line 2": "coordinate 0, column 'x', is 'b', not a number"}
        return
    assert read.ids == ids
    assert read.labels == labels
    assert read.vectors.tolist() == [vector]


def test_a_csv_of_numbers_only_has_no_header(whole):
    read = whole(io.BytesIO(b"1,2\n3,4\n"), format="csv")
    assert read.ids == ["0", "1"]
    assert read.vectors.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("a,0.1,0.2", "mixes names and numbers"),
        ("a,1,2", "mixes names and numbers"),
        (",v0,v1", "column 1 has no name"),
        ("id,id,v0", "2 columns id"),
        ("id,Label,label", "2 columns label"),
        ('id,"v0', "unexpected end of data"),
        (b"id,\xff", "not UTF-8"),
        (b"\x93NUMPY\x01\0", "not UTF-8"),
        ("x" * 2**20 + "y", "longer than"),
        ("id," + "x" * 200_000, "field larger than field limit"),
    ],
)
def test_a_first_csv_line_that_could_lose_an_item_is_refused(head, said, whole):
    data = head.encode() if isinstance(head, str) else head
    with pytest.raises(FormatError, match="is no header") as caught:
        whole(io.BytesIO(data + b"\n1,2,3\n"), format="csv")
    assert said in caught.value.why
    assert caught.value.remedy


def test_a_csv_header_alone_holds_no_vectors(whole):
    with pytest.raises(FormatError, match="holds no vectors"):
        whole(io.BytesIO(b"id,v0\n"), format="csv")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a,1", "2 cells and the header 3"),
        ("a,1,2,3", "4 cells and the header 3"),
        ("a,1,", "coordinate 1, column 'v1', is '', not a number"),
        ("a,1,two", "coordinate 1, column 'v1', is 'two'"),
        ("a,1,1_0", "is '1_0', not a number"),
        ("a,1,0x10", "is '0x10', not a number"),
        ("a,1,nan", "coordinate 1 is nan"),
        ("a,1,-inf", "coordinate 1 is -inf"),
        ("a,1,1e39", "beyond the range of float32"),
        ("a,1,1" + "0" * 5_000, "coordinate 1 is inf"),
        (",1,2", "0 bytes long"),
        ("x" * 129 + ",1,2", "129 bytes long"),
        ('"a,1,2', "it is no csv"),
        ('"a"b,1,2', "it is no csv"),
        ("a\rb,1,2", "it is no csv"),
        ("x" * 200_000 + ",1,2", "it is no csv"),
        ("a," * 500_000, "500,001 cells"),
        (b"a,1,\xff", "not UTF-8"),
        (b"a,1,2\0", "not a number"),
        (b"a,1," + b"0" * 2**20, "longer than"),
    ],
)
def test_a_broken_csv_line_is_refused_with_its_reason_and_the_next_lives(line, said, whole):
    refused = reasons(whole, line, "csv")
    assert list(refused) == ["line 2"]
    assert said in refused["line 2"]
    assert len(refused["line 2"]) < 300


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ("3", 3), ("-3", -3), ("3.0", 3), ("007", "007"), ("", None), ("nan", None), ("NaN", None),
        ("1.5", "1.5"), ("1e3", "1e3"), ("cat", "cat"), ('"a,b"', "a,b"), ("9" * 40, "9" * 40),
    ],
)  # fmt: skip
def test_a_csv_label_is_a_whole_number_only_where_it_is_written_as_one(cell, label, whole):
    assert whole(io.BytesIO(f"label,v\n{cell},1\n".encode()), format="csv").labels == [label]


@given(st.lists(st.lists(SINGLES, min_size=4, max_size=4), min_size=1, max_size=20))
def test_any_numbers_survive_csv(rows):
    text = "a,b,c,d\n" + "".join(",".join(map(repr, row)) + "\n" for row in rows)
    (chunk,) = formats.read(io.BytesIO(text.encode()), format="csv")
    assert chunk.vectors.tolist() == rows
    assert all(math.copysign(1, a) == math.copysign(1, b) for a, b in zip(chunk.vectors[0], rows[0], strict=True))
