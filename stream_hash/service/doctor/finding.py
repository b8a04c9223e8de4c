"""What the doctor says: a level, a sentence, and the command that mends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from redis import exceptions

from stream_hash.errors import StreamHashError

Level: TypeAlias = Literal["ok", "warning", "error"]

OK: Final[Level] = "ok"
WARNING: Final[Level] = "warning"
ERROR: Final[Level] = "error"

_COMMAND = re.compile(r"'([a-z|]+)'")


@dataclass(frozen=True)
class Finding:
    """check : what was looked at. subject : of which server, index or kind of process. fix : empty when all is well."""

    level: Level
    check: str
    subject: str
    finding: str
    fix: str = ""


def guarded(check: str, subject: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of `look`, and one more if it may not look, or cannot. A connection that breaks is raised."""
    try:
        yield from look()
    except exceptions.NoPermissionError as error:
        yield not_permitted(check, subject, error)
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        if isinstance(error, exceptions.ClusterDownError):
            yield Finding(ERROR, check, subject, f"it cannot be read: {error}", "see what is said of the cluster")
            return
        raise
    except exceptions.RedisError as error:
        yield Finding(ERROR, check, subject, f"it cannot be read: {error}", "mend what the server complains of")
    except StreamHashError as error:
        why = f" ({error.why})" if error.why else ""
        yield Finding(ERROR, check, subject, f"{error}{why}", error.remedy)


def not_permitted(check: str, subject: str, error: Exception) -> Finding:
    """What is said where an ACL forbids a look."""
    command = _COMMAND.search(str(error))
    fix = f"redis-cli ACL SETUSER USER +{command[1]}" if command else "ask whoever keeps the server's ACL"
    return Finding(WARNING, check, subject, f"not permitted to look: {error}", fix)
