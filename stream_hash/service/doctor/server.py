"""Each node of the server: can it be used, does it keep what it is told, is there room?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

from redis import exceptions

from stream_hash.service.doctor.finding import ERROR, OK, WARNING, Finding, guarded
from stream_hash.storage import connection
from stream_hash.storage.connection import Client, greeting, primaries

MEMORY_WARNING: Final = 0.9
"""Of maxmemory. Writes are refused at 1."""

MACHINE_WARNING: Final = 0.8
"""Of the machine's memory, where there is no maxmemory."""

SLOTS: Final = 16_384


def findings(client: Client, subject: str) -> Iterator[Finding]:
    """What there is to say of a server, or of each primary of a cluster."""
    nodes = primaries(client)
    for node in nodes:
        yield from _Node(node, subject, named=len(nodes) > 1).findings()


class _Node:
    """One server."""

    def __init__(self, client: Any, subject: str, *, named: bool) -> None:
        self._client = client
        where = client.get_connection_kwargs()
        self._cli = "redis-cli"
        if "path" in where:
            self._cli += f" -s {where['path']}"
        elif "host" in where:
            self._cli += f" -h {where['host']} -p {where['port']}"
        self._subject = f"{subject} {where.get('host')}:{where.get('port')}" if named else subject

    def findings(self) -> Iterator[Finding]:
        for check in ("version", "eviction", "memory", "persistence", "replication", "cluster"):
            yield from guarded(check, self._subject, getattr(self, f"_{check}"))

    @cached_property
    def _info(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.info("everything")
        return found

    def _config(self, name: str) -> str | None:
        """A setting; None when we may not ask."""
        try:
            values = self._client.config_get(name)
        except exceptions.ResponseError:  # not permitted, or renamed away
            return None
        found = values.get(name)
        return found.decode() if isinstance(found, bytes) else found

    def _say(self, level: Any, check: str, finding: str, fix: str = "") -> Finding:
        return Finding(level, check, self._subject, finding, fix)

    def _set(self, setting: str) -> str:
        return f"{self._cli} CONFIG SET {setting}, and in its configuration file"

    def _version(self) -> Iterator[Finding]:
        hello = greeting(self._client)
        engine, version = hello["server"], str(hello["version"])
        oldest = connection.OLDEST_SERVER
        if tuple(int(part) for part in version.split(".")[:2]) < oldest:
            needed = ".".join(map(str, oldest))
            yield self._say(ERROR, "version", f"{engine} {version}: the oldest supported is {needed}", "upgrade it")
        else:
            yield self._say(OK, "version", f"{engine} {version}")

    def _eviction(self) -> Iterator[Finding]:
        policy = self._info["maxmemory_policy"]
        if policy == "noeviction":
            yield self._say(OK, "eviction", "noeviction")
        else:
            said = f"it evicts keys (maxmemory-policy {policy}): indexes lose buckets without an error"
            yield self._say(ERROR, "eviction", said, self._set("maxmemory-policy noeviction"))

    def _memory(self) -> Iterator[Finding]:
        used, most = self._info["used_memory"], self._info["maxmemory"]
        machine = self._info.get("total_system_memory", 0)
        if most:
            said = f"{used / 1e6:.1f} MB of maxmemory's {most / 1e6:.1f} MB"
            fix = self._set(f"maxmemory {2 * used}")
            if used >= most:
                yield self._say(ERROR, "memory", f"{said}: writes are refused", fix)
            elif used >= MEMORY_WARNING * most:
                yield self._say(WARNING, "memory", f"{said}: writes are refused when it is full", fix)
            else:
                yield self._say(OK, "memory", said)
            return
        said = f"{used / 1e6:.1f} MB, no maxmemory; the machine has {machine / 1e6:.0f} MB"
        if machine and used >= MACHINE_WARNING * machine:
            fix = "move it to a larger machine; " + self._set(f"maxmemory {round(0.9 * machine)}")
            yield self._say(WARNING, "memory", said, fix)
        else:
            yield self._say(OK, "memory", said)

    def _persistence(self) -> Iterator[Finding]:
        aof, save = self._info["aof_enabled"], self._config("save")
        on = self._set("appendonly yes")
        if self._info.get("rdb_last_bgsave_status") != "ok":
            said = "the last snapshot failed; unless it is told otherwise, the server refuses writes until one succeeds"
            yield self._say(ERROR, "persistence", said, f"see its log, make room on its disk, then {self._cli} BGSAVE")
        if aof and self._info.get("aof_last_write_status") != "ok":
            said = "the append-only file cannot be written: writes are refused"
            yield self._say(ERROR, "persistence", said, "see its log, and make room on its disk")
        elif aof and self._config("appendfsync") == "no":
            said = "append-only file, but appendfsync is no: a power loss may take half a minute"
            yield self._say(WARNING, "persistence", said, self._set("appendfsync everysec"))
        elif aof:
            yield self._say(OK, "persistence", "append-only file")
        elif save is None:
            said = "no append-only file; not permitted to look whether there are snapshots (CONFIG GET)"
            yield self._say(WARNING, "persistence", said, on)
        elif save:
            said = "snapshots only: a restart loses all since the last one"
            yield self._say(WARNING, "persistence", said, on)
        else:
            yield self._say(WARNING, "persistence", "nothing is kept: a restart begins empty", on)

    def _replication(self) -> Iterator[Finding]:
        info = self._info
        if info["role"] == "slave":
            primary = f"{info.get('master_host')}:{info.get('master_port')}"
            yield self._say(ERROR, "replication", "it is a read-only replica", f"use its primary: {primary}")
            return
        replicas = [info[f"slave{number}"] for number in range(info["connected_slaves"])]
        away = sum(replica["state"] != "online" for replica in replicas)
        needed = self._config("min-replicas-to-write")
        good = info.get("min_slaves_good_slaves")
        if needed and good is not None and good < int(needed):
            said = f"{good} good replicas, and min-replicas-to-write is {needed}: writes are refused"
            yield self._say(ERROR, "replication", said, "bring its replicas back")
        elif away:
            yield self._say(
                WARNING, "replication", f"{away} of {len(replicas)} replicas are not in step", "see their logs"
            )
        elif replicas and needed == "0":
            said = f"{len(replicas)} replicas, but min-replicas-to-write is 0: a failover may lose what was accepted"
            yield self._say(WARNING, "replication", said, self._set("min-replicas-to-write 1"))
        elif replicas and needed is None:
            said = f"{len(replicas)} replicas; not permitted to look at min-replicas-to-write (CONFIG GET)"
            yield self._say(WARNING, "replication", said, "redis-cli ACL SETUSER USER +config|get")
        else:
            yield self._say(OK, "replication", f"{len(replicas)} replicas" if replicas else "no replicas")

    def _cluster(self) -> Iterator[Finding]:
        if not self._info.get("cluster_enabled"):
            return
        told = self._client.execute_command("CLUSTER INFO")
        served, state = int(told["cluster_slots_ok"]), told["cluster_state"]
        if state == "ok" and served == SLOTS:
            yield self._say(OK, "cluster", f"all {SLOTS} slots are served")
        else:
            said = f"the cluster's state is {state}: {served} of {SLOTS} slots are served"
            where = self._client.get_connection_kwargs()
            fix = f"bring its nodes back, or redis-cli --cluster fix {where.get('host')}:{where.get('port')}"
            yield self._say(ERROR, "cluster", said, fix)
