"""A job as far as we trust one: a function's name, an index name, and what that function may be given.

Rules
1. What is not read cannot hurt. Of a job hash six fields are read, each bounded on the server before it is
   sent; callbacks, webhooks, meta, dependencies, repeats, rate limits, groups and results never are.
2. A job runs nothing by itself: `func` and `perform` refuse. The worker looks the name up in its own table.
3. Whatever is wrong with a hash is one error, MalformedJobError, which RQ takes for a job that is gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, NoReturn, TypeAlias, TypeVar

from redis import Redis
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from stream_hash.errors import UsageError
from stream_hash.queue.arguments import check_argument
from stream_hash.queue.bounded import decompress, read_fields
from stream_hash.settings import check_name

JobFunction: TypeAlias = Callable[[Any, str, str], None]
"""What a worker runs: it is given the worker's context, the index name and the argument (arguments.py)."""

JOB_TIMEOUT_SECONDS: Final = 120
FAILURE_SECONDS: Final = 3_600
"""How long RQ keeps the hash of a failed job: the ledger, not RQ, is where a batch is kept."""
MAX_TIMEOUT_SECONDS: Final = 3_600
MAX_RETRIES: Final = 100

MAX_FIELD_BYTES: Final = 4_096
MAX_DATA_BYTES: Final = 4_096
"""Room for a function name, a name and the longest argument, several times over."""

ID: Final = re.compile(r"[A-Za-z0-9_-]{1,160}")
"""RQ's own pattern, with an end; ours have at most 133 characters."""
FIELDS: Final = ("origin", "data", "status", "timeout", "retries_left", "created_at")

Value = TypeVar("Value")


class MalformedJobError(NoSuchJobError):
    """A job hash is not one of ours. `origin` is the queue that it says it is from, empty if it does not."""

    def __init__(self, job_id: str, reason: str, origin: str = "") -> None:
        super().__init__(f"the hash of job {job_id} is malformed: {reason}")
        self.job_id = job_id
        self.reason = reason
        self.origin = origin


class SafeJob(Job):
    """RQ's Job that can only carry `(function name, index name, argument)`."""

    _status_of: ClassVar[Mapping[str, JobStatus]] = {status.value: status for status in JobStatus}

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - RQ's name
        connection: Redis | None = None,
        serializer: object = None,  # noqa: ARG002 - RQ's signature; the serializer is not the caller's choice
    ) -> None:
        super().__init__(id, connection, JSONSerializer)

    @classmethod
    def fetch(cls, id: str, connection: Redis | None = None, serializer: object = None) -> SafeJob:  # noqa: A002 - RQ's name
        """The job `id`. Raises NoSuchJobError when it does not exist, and its subclass when it is malformed."""
        if not isinstance(id, str) or not ID.fullmatch(id):
            raise NoSuchJobError(f"no job has the id {id!r:.80}")
        job = cls(id, connection=connection, serializer=serializer)
        job.refresh()
        return job

    @classmethod
    def fetch_many(cls, job_ids: Iterable[str], connection: Redis, serializer: object = None) -> list[Job | None]:
        """The jobs, None for each that does not exist or is malformed."""
        jobs: list[Job | None] = []
        for job_id in job_ids:
            try:
                jobs.append(cls.fetch(job_id, connection, serializer))
            except NoSuchJobError:
                jobs.append(None)
        return jobs

    def refresh(self) -> None:
        """Read the hash again: one round trip."""
        values = read_fields(self.connection, self.key, FIELDS, MAX_FIELD_BYTES)
        if not isinstance(values, list):
            if not values:
                raise NoSuchJobError(f"no job has the id {self.id}")
            raise MalformedJobError(self.id, values.decode())
        self.restore(dict(zip(FIELDS, values, strict=True)))

    def restore(self, raw_data: Mapping[str | bytes, bytes | None]) -> None:
        """Take over the fields of a hash. Raises MalformedJobError."""
        fields = {name: raw_data.get(name, raw_data.get(name.encode())) for name in FIELDS}
        self.origin = self._parsed("origin", fields["origin"], bytes.decode)
        self.data = self._parsed("data", fields["data"], lambda raw: decompress(raw, MAX_DATA_BYTES))
        self._func_name, self._args = self._parsed("data", self.data, _parse_call)
        self._instance, self._kwargs = None, {}
        self._status = self._parsed("status", fields["status"], lambda raw: self._status_of[raw.decode()])
        self.timeout = self._parsed("timeout", fields["timeout"], lambda raw: _whole(raw, 1, MAX_TIMEOUT_SECONDS))
        self.created_at = self._parsed("created_at", fields["created_at"], _parse_date)
        self.retries_left = None
        if fields["retries_left"]:
            self.retries_left = self._parsed(
                "retries_left", fields["retries_left"], lambda raw: _whole(raw, 0, MAX_RETRIES)
            )
        # Not read: with an interval a retry is lost when the worker dies between two writes, and a kept
        # result is a key that nobody deletes.
        self.retry_intervals = None
        self.result_ttl = 0
        self.failure_ttl = FAILURE_SECONDS

    def _parsed(self, name: str, raw: bytes | None, parse: Callable[[bytes], Value]) -> Value:
        if not raw:
            raise MalformedJobError(self.id, f"its field {name} is missing", self.origin)
        try:
            return parse(raw)
        except (ValueError, KeyError, TypeError, RecursionError, UsageError) as error:
            raise MalformedJobError(self.id, f"its field {name} is {raw!r:.80} ({error!s:.80})", self.origin) from error

    @property
    def func(self) -> NoReturn:
        """Refused: RQ would import whatever the hash names."""
        raise RuntimeError(f"job {self.id} is run by a StreamWorker, or not at all")

    def perform(self) -> NoReturn:
        """Refused, for the same reason."""
        raise RuntimeError(f"job {self.id} is run by a StreamWorker, or not at all")

    _execute = perform

    def get_meta(self, refresh: bool = True) -> dict[str, Any]:  # noqa: ARG002 - RQ's signature
        """Empty: RQ would deserialise whatever the hash holds."""
        return {}

    def latest_result(self, timeout: int = 0) -> Result | None:  # noqa: ARG002 - RQ's signature
        """None: ours leave no results, and RQ would decompress those of others without a bound."""
        return None

    def results(self) -> list[Result]:
        """Empty, for the same reason."""
        return []

    def delete(
        self,
        pipeline: Any = None,
        remove_from_queue: bool = True,  # noqa: ARG002 - RQ's signature; an id without a hash is dropped when its turn comes
        delete_dependents: bool = False,  # noqa: ARG002 - RQ's signature; ours have none
    ) -> None:
        """Delete every key of the job, reading nothing.

        RQ's own reads the status and each execution first, and fails when another delivery has just
        finished the job, or when an execution that was killed has expired: a success would become a retry.
        """
        connection = self.connection if pipeline is None else pipeline
        connection.delete(
            self.key,
            self.dependents_key,
            self.dependencies_key,
            self.execution_registry.key,
            Result.get_key(self.id),  # type: ignore[no-untyped-call] # RQ leaves it untyped
        )


def _parse_call(data: bytes) -> tuple[str, list[str]]:
    """The function name and the two arguments from `["name", null, ["index", "argument"], {}]`."""
    name, instance, arguments, keywords = json.loads(data)
    if not isinstance(name, str) or instance is not None or keywords != {} or not isinstance(arguments, list):
        raise ValueError("it is no call of a function with arguments")
    index, argument = arguments
    if not isinstance(index, str) or not isinstance(argument, str):
        raise TypeError("its arguments are not two texts")
    return name, [check_name(index), check_argument(name, argument)]


def _whole(raw: bytes, low: int, high: int) -> int:
    """A whole number in ASCII digits: Python's `int` would also take blanks, underscores and any length."""
    if not re.fullmatch(rb"[0-9]{1,9}", raw) or not low <= int(raw) <= high:
        raise ValueError(f"it must be a whole number from {low} to {high}")
    return int(raw)


def _parse_date(raw: bytes) -> datetime:
    return datetime.strptime(raw.decode(), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
