"""get, delete, label."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import DIMENSION, Cli


def label_of(cli: Cli, index: str, item_id: str) -> object:
    return cli("get", index, item_id).json["label"]


def test_get_prints_items_as_json_in_the_order_asked_for(cli: Cli, index: str) -> None:
    outcome = cli("get", index, "item-5", "item-3")
    assert (outcome.code, outcome.err) == (0, "")
    assert [item["id"] for item in outcome.lines] == ["item-5", "item-3"]
    for item in outcome.lines:
        assert list(item) == ["id", "label", "metadata", "sequence", "vector"]
        assert len(item["vector"]) == DIMENSION
        assert item["metadata"] is None
    assert cli("get", index, "item-5", "item-3", "--json") == outcome


def test_get_prints_the_others_and_names_what_is_missing_with_1(cli: Cli, index: str) -> None:
    outcome = cli("get", index, "item-5", "lost", "item-3", "gone")
    assert outcome.code == 1
    assert [item["id"] for item in outcome.lines] == ["item-5", "item-3"]
    assert outcome.err.splitlines()[0] == f"Error: index {index!r} has no item 'lost', 'gone'"


def test_delete_says_what_was_not_there_and_ends_with_0(cli: Cli, index: str) -> None:
    outcome = cli("delete", index, "item-5", "lost", "item-5", "--json")
    assert outcome.code == 0
    assert outcome.json == {"deleted": 1, "missing": ["lost"]}
    assert outcome.err == "1 had no item: 'lost'\n"
    assert cli("get", index, "item-5").code == 1
    assert cli("delete", index, "item-6").out == "deleted 1\n"


def test_delete_reads_ids_from_stdin(cli: Cli, index: str) -> None:
    assert cli("delete", index, "-", "--json", stdin=b"item-1\n\nitem-2\n").json["deleted"] == 2
    assert cli("status", index, "--json").json["items"] == 298


def test_an_id_that_can_be_none_deletes_nothing(cli: Cli, index: str) -> None:
    outcome = cli("delete", index, "-", stdin=b"item-1\n\xff\xfe\n")
    assert outcome.code == 1
    assert "line 2 of standard input is no id" in outcome.err
    assert cli("get", index, "item-1").code == 0
    assert cli("delete", index, "item-1", "x" * 129).code == 2
    assert cli("get", index, "item-1").code == 0


@pytest.mark.parametrize(
    ("text", "options", "stored"),
    [
        ("cat", [], "cat"),
        ("3", [], 3),
        ("3.0", [], 3),
        ("007", [], "007"),
        ("3", ["--text"], "3"),
        ("", [], None),
    ],
)
def test_a_label_written_as_a_whole_number_is_one(
    cli: Cli, index: str, text: str, options: list[str], stored: object
) -> None:
    outcome = cli("label", index, "item-4", text, *options, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json == {"labelled": 1, "missing": [], "rejected": 0}
    assert label_of(cli, index, "item-4") == stored


@pytest.mark.parametrize(
    "content",
    [
        '{"id": "item-1", "label": "x"}\n{"id": "item-2", "label": ["y", 2]}\n{"id": "item-3", "label": null}\n',
        'id,label\nitem-1,x\nitem-2,y\nitem-3,""\n',
        "item-1,x\nitem-2,y\nitem-3,\n",
        "page,Label,ID\n1,x,item-1\n2,y,item-2\n3,,item-3\n",
    ],
    ids=["jsonl", "csv with a header", "csv without one", "csv with more columns"],
)
def test_labels_come_from_a_file_or_stdin(cli: Cli, index: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_text(content)
    assert cli("label", index, "--file", path).out == "labelled 3\n"
    assert label_of(cli, index, "item-1") == "x"
    assert label_of(cli, index, "item-3") is None
    assert cli("label", index, "--file", "-", "--json", stdin=content.encode()).json["labelled"] == 3


def test_ids_without_an_item_are_told_and_end_with_3(cli: Cli, index: str) -> None:
    outcome = cli("label", index, "--file", "-", "--json", stdin=b"item-1,x\nlost,y\n")
    assert outcome.code == 3
    assert outcome.json == {"labelled": 1, "missing": ["lost"], "rejected": 0}
    assert outcome.err == "1 had no item: 'lost'\n"
    assert cli("label", index, "lost", "y").code == 3


def test_bad_lines_are_told_and_the_good_ones_beside_them_count(cli: Cli, index: str) -> None:
    lines = b'{"id": "item-1", "label": "x"}\n{"id": "item-2"}\n{"id": "item-1", "label": "y"}\n[1]\n{"id": NaN}\n'
    outcome = cli("label", index, "--file", "-", "--json", stdin=lines)
    assert outcome.code == 3
    assert outcome.json == {"labelled": 1, "missing": [], "rejected": 4}
    assert "line 2: it has no label" in outcome.err
    assert "line 3: id 'item-1' already stood at line 1" in outcome.err
    assert label_of(cli, index, "item-1") == "x"


def test_a_file_without_a_usable_line_ends_with_1(cli: Cli, index: str, tmp_path: Path) -> None:
    assert cli("label", index, "--file", "-", stdin=b"a,b,c\n").code == 1
    assert cli("label", index, "--file", "-", stdin=b"").code == 1
    assert cli("label", index, "--file", tmp_path / "missing.csv").code == 1


def test_a_label_too_long_is_refused(cli: Cli, index: str) -> None:
    outcome = cli("label", index, "item-1", "x" * 2_000)
    assert outcome.code == 2
    assert "the limit is 1024" in outcome.err
