"""Who may do what, kept beside the server: one trainer has the lease, and an older token changes nothing.

It is told each call of a script that carries a token, with the reply, in the order in which the server applied them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

OF_A_PARTITION = ("generation_begin", "generation_switch", "generation_abandon")
OF_THE_INDEX = ("trainer_renew", "trainer_release", "trainer_publish", "trainer_checkpoint", "trainer_forget")


class Fences:
    """The newest tokens, and the lease."""

    def __init__(self) -> None:
        self._seen: dict[bytes | str, int] = {}
        self._newest = 0
        self._holder, self._until = "", 0
        self._generations: set[int] = {1}

    def called(self, script: str, key: str, arguments: Sequence[Any], reply: Sequence[Any]) -> None:
        """Assert that the script answered as it must."""
        if script in OF_A_PARTITION:
            self._of_a_partition(script, key, int(arguments[2]), reply)
        elif script == "trainer_lead":
            self._lead(arguments[0], int(arguments[1]), int(arguments[2]), reply)
        elif script in OF_THE_INDEX:
            token = int(arguments[0])
            assert (reply[0] == b"FENCED") == (token < self._newest), (
                f"{script} by {token}, newest {self._newest}: {reply}"
            )
            if reply[0] == b"FENCED":
                return
            if script == "trainer_renew":
                self._until = int(arguments[1])
            if script == "trainer_release":
                self._holder, self._until = "", 0
            if script == "trainer_publish" and reply[0] == b"OK":
                self._published(int(reply[1]))

    def _of_a_partition(self, script: str, key: str, token: int, reply: Sequence[Any]) -> None:
        seen = self._seen.get(key, 0)
        assert (reply[0] == b"FENCED") == (token < seen), f"{script} by {token}, {key} has seen {seen}: {reply}"
        self._seen[key] = max(seen, token)

    def _published(self, generation: int) -> None:
        newest = max(self._generations)
        assert generation in (newest, newest + 1), f"generation {generation} was published after {newest}"
        self._generations.add(generation)

    def _lead(self, holder: str, now: int, until: int, reply: Sequence[Any]) -> None:
        held = self._holder not in ("", holder) and self._until > now
        assert (reply[0] == b"HELD") == held, f"{holder} asked for the lease that {self._holder} has: {reply}"
        if held:
            return
        token = int(reply[1])
        expected = self._newest + (holder != self._holder)
        assert token == expected, f"{holder} was given token {token}, not {expected}"
        self._newest, self._holder, self._until = token, holder, until
