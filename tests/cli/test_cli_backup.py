"""export and import, and every command of docs/backup.md."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.cluster import RedisCluster

from stream_hash.formats.archive import ArchiveWriter
from stream_hash.storage.imports import Imports
from tests.cli.support import DIMENSION, ROOT, Cli, Outcome
from tests.pages import transcript

PAGE = (ROOT / "docs" / "backup.md").read_text(encoding="utf-8")


@pytest.fixture
def file(cli: Cli, index: str, tmp_path: Path) -> Path:
    """An export of the index of 300 items."""
    path = tmp_path / "items.shx"
    assert cli("export", index, path).code == 0
    return path


def test_export_and_import_say_what_they_did(cli: Cli, index: str, tmp_path: Path) -> None:
    path = tmp_path / "items.shx"
    done = cli("export", index, path, "--json").json
    assert list(done) == ["index", "items", "generations", "bytes", "sha256", "began", "skipped", "seconds"]
    assert (done["items"], done["generations"], done["bytes"]) == (300, 1, path.stat().st_size)
    found = cli("import", path, f"{index}-2", "--partitions", 3, "--json").json
    assert list(found) == [
        *("index", "items", "generations", "skipped", "live", "partitions", "already"),
        "seconds",
    ]
    assert (found["items"], found["partitions"], found["already"]) == (300, 3, False)
    one, other = (cli("get", name, "item-5", "item-6").lines for name in (index, f"{index}-2"))
    assert one == other


def test_the_archive_goes_to_stdout_and_comes_from_stdin(cli: Cli, index: str, file: Path) -> None:
    outcome = cli("import", "-", f"{index}-2", stdin=file.read_bytes())
    assert outcome.out == "imported 300 items into 1 partition; generation 1 is live\n"
    assert cli("query", f"{index}-2", "--id", "item-7").out == cli("query", index, "--id", "item-7").out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["export", "x", "-", "--json"], "With - stdout gets the file"),
        (["export", "x", "-", "--resume"], "nothing that --resume could go on with"),
        (["import", "only.shx"], "Give FILE and NAME."),
        (["import", "a.shx", "b", "--abandon", "b"], "--abandon goes alone."),
        (["import", "a.shx", "b", "--partitions", "0"], "0 is not in the range"),
        (["import", "a.shx", "b", "--partitions", "1025"], "1025 is not in the range"),
    ],
)
def test_bad_usage_ends_with_2(invoke: Cli, args: list[str], message: str) -> None:
    outcome = invoke(*args)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_what_cannot_be_done_is_told_with_its_exit_code(cli: Cli, index: str, file: Path, tmp_path: Path) -> None:
    assert cli("export", "nowhere", tmp_path / "a.shx").code == 5
    assert list(tmp_path.glob("*a.shx*")) == []
    assert cli("import", tmp_path / "none.shx", "b").err.startswith("Error: " + str(tmp_path / "none.shx"))
    assert cli("import", file, index).err.startswith(f"Error: index {index!r} exists\n")
    assert cli("import", file, "a:b").code == 2
    assert cli("import", "--abandon", "nothing").code == 5
    outcome = cli("export", index, tmp_path / "no" / "folder.shx")
    assert outcome.code == 1
    assert "cannot be written" in outcome.err
    file.write_bytes(file.read_bytes()[:-20])
    outcome = cli("import", file, f"{index}-2")
    assert outcome.code == 1
    assert "is damaged: it ends within block" in outcome.err
    assert outcome.err.count("\n") == 3


KILLED = """
import os, signal
from stream_hash.cli import main
from stream_hash.formats.archive import ArchiveWriter
from stream_hash.service import export

export.ITEMS_A_BLOCK = 64
write = ArchiveWriter.write

def killed(self, *block):
    if self.place().blocks == 6:  # three of items
        self._put(b"half of a block")
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, *block)

ArchiveWriter.write = killed
main()
"""


def test_an_export_that_was_killed_goes_on_when_it_is_told_to(
    cli: Cli, index: str, file: Path, spawn: Callable[..., subprocess.Popen[str]], working: Path, tmp_path: Path
) -> None:
    whole, path = file.read_bytes(), tmp_path / "b.shx"
    part = tmp_path / ".b.shx.part"
    environment = {"STREAM_HASH_DATA_DIR": str(working)}
    killed = spawn("export", index, path, env=environment, command=[sys.executable, "-c", KILLED])
    assert killed.wait(60) == -signal.SIGKILL
    assert part.read_bytes().endswith(b"half of a block")
    assert not path.exists()
    done = cli("export", index, path, "--resume", "--json").json
    assert (done["items"], done["skipped"]) == (300, 192)
    assert not part.exists()
    assert cli("import", path, f"{index}-2").code == 0
    every = [f"item-{row}" for row in range(300)]
    assert cli("get", f"{index}-2", *every).out == cli("get", index, *every).out
    assert abs(path.stat().st_size - len(whole)) < 2_000  # in other blocks


def test_an_export_that_fails_tells_how_to_go_on_and_without_resume_begins_anew(
    cli: Cli, index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.shx"
    interrupt_export(cli, index, path, monkeypatch)
    outcome = cli("export", index, path)
    assert (outcome.code, outcome.out.count("of them by an attempt")) == (0, 0)
    interrupt_export(cli, index, path, monkeypatch)
    assert cli("create", f"{index}-2", "--dim", DIMENSION).code == 0
    outcome = cli("export", f"{index}-2", path, "--resume")
    assert outcome.code == 5
    assert "export without --resume" in outcome.err
    assert "goes on with it" not in outcome.err
    began = r", 300 of them by an attempt that began \d{4}-\d\d-\d\d \d\d:\d\d UTC: "
    assert re.search(began, cli("export", index, path, "--resume").out)


def interrupt_export(cli: Cli, index: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave an export that has written every item."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ArchiveWriter, "finish", killed)
        outcome = cli("export", index, path)
    assert outcome.code == 130
    assert f"stays in {path.with_name(f'.{path.name}.part')}, and export --resume goes on" in outcome.err


def test_on_a_cluster_nobody_asks_for_a_queue_who_needs_none(
    invoke: Cli, file: Path, cluster_url: str, tmp_path: Path
) -> None:
    """RQ's keys could not be placed on it: RQ_KEY_PREFIX has no hash tag here."""
    with RedisCluster.from_url(cluster_url) as client:
        client.flushall()

    def on_cluster(*args: object) -> Outcome:
        return invoke(*args, "--url", cluster_url)

    path = tmp_path / "a.shx"
    assert on_cluster("import", file, "one", "--partitions", 2).out.startswith("imported 300 items into 2 partitions")
    assert on_cluster("export", "one", path).out.startswith("exported 300 items and 1 generation: ")
    assert on_cluster("import", path, "two").out.startswith("imported 300 items into 2 partitions")
    assert on_cluster("verify", "two").out.endswith(" 0 violations\n")
    assert on_cluster("query", "two", "--id", "item-1").out == on_cluster("query", "one", "--id", "item-1").out != ""
    assert on_cluster("import", "--abandon", "three").code == 5
    for others in (["get", "item-1"], ["generations"], ["label", "item-1", "7"], ["delete", "item-2"]):
        outcome = on_cluster(others[0], "two", *others[1:])
        assert outcome.code == 0, outcome.err
    assert "RQ_KEY_PREFIX" in on_cluster("status").err


def test_an_interrupted_import_is_listed_and_its_name_is_kept(
    cli: Cli, index: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{index}-2"
    interrupt(cli, file, name, monkeypatch)
    assert name in cli("status", "--json").json["importing"]
    assert re.search(rf"importing +.*{name}", cli("status").out)
    outcome = cli("query", name, "--id", "item-1")
    assert outcome.code == 5
    assert "300 items so far" in outcome.err
    assert "is being imported under the name" in cli("create", name, "--dim", DIMENSION).err
    assert cli("import", file, name).out == (
        "imported 300 items into 1 partition, 300 of them by an earlier attempt; generation 1 is live\n"
    )
    assert name not in cli("status", "--json").json["importing"]


def interrupt(cli: Cli, file: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave an import that has written every item."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Imports, "finish", killed)
        assert cli("import", file, name).code == 130


def test_every_command_of_the_page_does_what_it_shows(
    cli: Cli, working: Path, archive: Path, tmp_path: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("create", "photos", "--dim", DIMENSION, "--bits", 8).code == 0
    assert cli("ingest", "photos", archive, "--wait").code == 0
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**variables, "PATH": path, "STREAM_HASH_DATA_DIR": str(working)}
    shown = transcript(PAGE)
    assert len(shown) == 9
    for command, printed in shown:
        if "--abandon" in command:
            interrupt(cli, Path("photos.shx"), "photos-4", monkeypatch)
        if "--resume" in command:
            interrupt_export(cli, "photos", Path("monday.shx"), monkeypatch)
        if "|" in command:
            done = subprocess.run(
                ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=True
            )
            out = done.stdout + done.stderr
        else:
            program, *arguments = shlex.split(command)
            assert program == "stream-hash"
            outcome = cli(*arguments)
            assert outcome.code == 0, outcome.err
            out = outcome.out
        assert without_counts(out) == without_counts(printed), command


def without_counts(text: str) -> str:
    """What is the same on every machine, on any day: the first batch's mean decides how many buckets there are."""
    return re.sub(r"\d+ buckets|\d+\.\d kB|\d{4}-\d\d-\d\d \d\d:\d\d", "~", text)
