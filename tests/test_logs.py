"""Logs: one JSON object a line with what it is about, text for people, and how a process is told which."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from stream_hash import logs
from stream_hash.environment import read_logging
from stream_hash.errors import UsageError
from stream_hash.logs import JsonFormatter, about, told


@pytest.fixture
def logger() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("stream_hash.test_logs")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger, stream
    logger.removeHandler(handler)
    logger.propagate = True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_how_bad_who_what_and_what_it_is_about(logger: tuple[logging.Logger, io.StringIO]) -> None:
    log, stream = logger
    log.info("batch %s\nof %s", "b1", "é", extra=told("batch.applied", items=256, ms=1.5))
    (line,) = lines(stream)
    assert list(line)[:5] == ["ts", "level", "logger", "event", "message"]
    assert line.pop("ts").endswith("Z")
    assert line == {
        **{"level": "info", "logger": "stream_hash.test_logs", "event": "batch.applied", "message": "batch b1\nof é"},
        **{"items": 256, "ms": 1.5},
    }


def test_without_an_event_of_its_own_a_line_names_the_function(logger: tuple[logging.Logger, io.StringIO]) -> None:
    log, stream = logger
    log.warning("careful")
    assert lines(stream)[0]["event"] == ("test_logs.test_without_an_event_of_its_own_a_line_names_the_function")


def test_an_error_comes_with_its_traceback_on_the_same_line(logger: tuple[logging.Logger, io.StringIO]) -> None:
    log, stream = logger
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("failed", extra=told("job.failed", odd=object))
    (line,) = lines(stream)
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: no")
    assert line["odd"] == "<class 'object'>"


def test_what_work_is_about_stands_on_every_line_logged_in_it_by_this_thread(
    logger: tuple[logging.Logger, io.StringIO],
) -> None:
    log, stream = logger

    def work() -> None:
        with about(worker="w"):
            with about(index="x", batch="b1", event="never", level="never"):
                with about(batch="b2"):
                    log.info("inner", extra=told("inner", index="y"))
                log.info("outer")
            log.info("after")

    other = threading.Thread(target=work)
    other.start()
    other.join()
    log.info("elsewhere")
    found = [[line.get(name) for name in ("worker", "index", "batch")] for line in lines(stream)]
    assert found == [["w", "y", "b2"], ["w", "x", "b1"], ["w", None, None], [None, None, None]]
    assert [line["level"] for line in lines(stream)] == ["info"] * 4
    assert lines(stream)[0]["event"] == "inner"


CONFIGURE = """
import logging, sys
from stream_hash import logs
from stream_hash.environment import read_logging
chosen = read_logging(format_={format!r})
if {terminal}: sys.stderr.isatty = lambda: True
logs.configure(chosen.format, chosen.level)
logging.getLogger("a").debug("fine detail")
logging.getLogger("a").warning("careful")
print(*logs.variables().values())
"""


@pytest.mark.parametrize(
    ("format_", "terminal", "variables", "expected"),
    [
        (None, False, {}, "json info"),
        (None, True, {}, "text info"),
        ("text", False, {"STREAM_HASH_LOG_FORMAT": "json"}, "text info"),
        (None, True, {"STREAM_HASH_LOG_FORMAT": "json", "STREAM_HASH_LOG_LEVEL": "debug"}, "json debug"),
    ],
)
def test_text_is_for_terminals_and_json_for_the_rest_unless_it_is_said(
    format_: str | None, terminal: bool, variables: dict[str, str], expected: str
) -> None:
    code = CONFIGURE.format(format=format_, terminal=terminal)
    environment = {"PYTHONPATH": ":".join(sys.path), **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
    last = done.stderr.splitlines()[-1]
    assert (json.loads(last)["message"] if "json" in expected else last[-15:]) in ("careful", "WARNING careful")
    assert ("fine detail" in done.stderr) == ("debug" in expected)


def test_what_is_no_format_and_no_level_is_refused() -> None:
    for variables in ({"STREAM_HASH_LOG_FORMAT": "xml"}, {"STREAM_HASH_LOG_LEVEL": "loud"}):
        ((name, value),) = variables.items()
        with pytest.raises(UsageError, match=f"{name} is '{value}'"):
            read_logging(variables=variables)
    assert read_logging(variables={"STREAM_HASH_LOG_FORMAT": ""}).format is None
    assert isinstance(logs.variables(), dict)
