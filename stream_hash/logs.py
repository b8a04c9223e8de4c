"""Logs of long-running processes: a line a record on stderr, for people or as one JSON object.

Rules
1. Modules log by the standard library, each through a logger of its own; only a process says how that looks.
2. What a line is about stands beside its message: `extra=told("batch.applied", items=256, ms=3.1)`. What holds for
   all that is logged during some work, such as the index and the batch, is said once, `with about(index=…, batch=…)`.
3. Names, numbers, reasons: never a vector, a label, metadata, a password or a URL that holds one.

A JSON line has ts (UTC), level, logger, event, message, then what it is about; and `exception`, a traceback, if there
was an error. `event` is a stable name for machines: the one given to `told`, else MODULE.FUNCTION of what logged.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

LogFormat: TypeAlias = Literal["text", "json"]

_KEY: Final = "stream_hash"
"""Of a record's attributes the one that `told` sets."""

_chosen: list[tuple[LogFormat, str]] = []

_about: ContextVar[Mapping[str, Any]] = ContextVar("stream_hash_about", default=MappingProxyType({}))


def told(event: str, **fields: Any) -> dict[str, Any]:
    """The `extra` of a log call: what happened, by a stable name, and what it is about."""
    return {_KEY: (event, fields)}


@contextlib.contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Let everything that this thread logs inside say these fields, too."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def milliseconds_since(start: float) -> float:
    """How long ago `time.perf_counter()` was `start`, for people: three decimals."""
    return round((time.perf_counter() - start) * 1e3, 3)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        said: tuple[str, Mapping[str, Any]] = getattr(record, _KEY, (f"{record.module}.{record.funcName}", {}))
        event, fields = said
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event,
            "message": record.getMessage(),
        }
        line = {**_about.get(), **fields, **line}  # nothing stands in the place of the five
        line = {name: line.pop(name) for name in ("ts", "level", "logger", "event", "message")} | line
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure(format_: LogFormat | None = None, level: str = "info") -> None:
    """Log to stderr from now on, unless somebody has configured logging already.

    format_ : None is text on a terminal and json elsewhere.
    """
    if format_ is None:
        format_ = "text" if sys.stderr.isatty() else "json"
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ == "json" else text)
    _chosen[:] = [(format_, level)]
    logging.basicConfig(level=level.upper(), handlers=[handler])


def variables() -> dict[str, str]:
    """The environment in which a child process logs as this one does; empty if this one was not told how."""
    return {"STREAM_HASH_LOG_FORMAT": _chosen[0][0], "STREAM_HASH_LOG_LEVEL": _chosen[0][1]} if _chosen else {}
