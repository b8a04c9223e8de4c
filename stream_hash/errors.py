"""What can go wrong: one root, one class a meaning, each a one-sentence fact with its remedy.

Errors of redis-py, numpy and the operating system are translated into these at the edge where
they appear, with the value that was wrong. The command line prints `str(error)` as what failed,
`error.why` as the cause and `error.remedy` as the command or change that mends it, and leaves
with `error.exit_code`.
"""

from __future__ import annotations

from typing import ClassVar


class StreamHashError(Exception):
    """The root of every error this package raises on purpose."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.why = why
        self.remedy = remedy


class UsageError(StreamHashError):
    """An argument is outside what the call accepts."""

    exit_code = 2


class UnlearnableError(UsageError, ValueError):
    """Nothing can be learned from these items, labels or parameters.

    A ValueError as well: that is what callers of scikit-learn's estimators expect.
    """


class InvalidItemError(UsageError):
    """An item cannot be stored: its id, vector, label or metadata breaks a limit."""


class FormatError(StreamHashError):
    """A file is not what its format promises, or would expand beyond the limits."""


class ServerUnreachableError(StreamHashError):
    """No usable Redis or Valkey server answers: it is away, loading, or refuses the password."""

    exit_code = 4


class ServerRefusedError(StreamHashError):
    """The server answers but cannot be used: it evicts keys, is a read-only replica, or is too old."""


class OutOfMemoryError(StreamHashError):
    """The server has reached `maxmemory` and refuses writes."""


class IndexMissingError(StreamHashError):
    """No index of that name exists."""

    exit_code = 5


class IndexExistsError(StreamHashError):
    """An index of that name exists with other settings."""


class BackPressureError(StreamHashError):
    """The bound on pending batches is reached and the producer asked to be told, not to wait."""


class PartitionFullError(StreamHashError):
    """A partition holds as many items as a member's item number can count."""


class IntegrityError(StreamHashError):
    """Stored bytes are not what was written: a checksum, a version or a length is wrong."""


class EmbeddedServerError(StreamHashError):
    """The embedded server cannot be started, stopped or trusted with its data directory."""
