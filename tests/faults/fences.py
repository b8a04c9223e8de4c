"""Who may do what, kept beside the server: one trainer has the lease, an older token changes nothing, and a
generation's number is given out once.

It is told each call of a script of the trainer with the reply, in the order in which the server applied them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

UNDER_A_TOKEN = ("trainer_renew", "trainer_release", "trainer_publish", "trainer_checkpoint", "trainer_forget")


class Fences:
    """The newest token, the lease, and the generations. leads : how often the lease was given."""

    def __init__(self) -> None:
        self.newest = self.leads = 0
        self._holder, self._until = "", 0
        self._generations: dict[int, str] = {}
        self._forgotten: set[int] = set()
        self._target = 0
        self._runs: list[str] = []

    def called(self, script: str, arguments: Sequence[Any], reply: Any) -> None:
        """Assert that the script answered as it must."""
        if script.startswith("trainer_"):
            arguments = arguments[1:]  # without the nonce
        if script == "publish":
            self._first(int(arguments[0]), reply)
        elif script == "trainer_lead":
            self._lead(arguments[0], int(arguments[1]), int(arguments[2]), reply)
        elif script in UNDER_A_TOKEN:
            token = int(arguments[0])
            assert (reply[0] == b"FENCED") == (token < self.newest), (
                f"{script} by {token}, newest {self.newest}: {reply}"
            )
            if reply[0] == b"FENCED":
                return
            if script == "trainer_renew":
                self._until = int(arguments[1])
            if script == "trainer_release":
                self._holder, self._until = "", 0
            if script == "trainer_publish" and reply[0] == b"OK":
                self._published(int(reply[1]), arguments[1], *arguments[4:])
            if script == "trainer_checkpoint":
                self._recorded(arguments[1], int(arguments[3]), reply[1])
            if script == "trainer_forget":
                self._forget(int(arguments[1]), {int(generation) for generation in arguments[2:]}, reply[1:])

    def _first(self, generation: int, reply: Any) -> None:
        forgotten = generation in self._forgotten
        assert (reply is None) == forgotten, f"generation {generation} was forgotten: {forgotten}, published: {reply}"
        self._generations.setdefault(generation, "")

    def _published(self, generation: int, sha256: str, run: str = "", kept: int = 0) -> None:
        newest = max(self._generations)  # which is the target, if a trainer published it
        expected = newest if self._generations[newest] == sha256 else newest + 1
        assert generation == expected, f"generation {generation} was published after {newest}, not {expected}"
        if generation not in self._generations and run:
            self._runs = [json.loads(run)["id"], *self._runs][: int(kept)]
        self._generations[generation] = sha256
        self._target = generation

    def _recorded(self, run: str, kept: int, stored: int) -> None:
        """Once as long as its record is kept: that is how long a request is known to have been trained."""
        assert stored == (run not in self._runs), f"run {run} is stored: {stored}, those that are kept are {self._runs}"
        if stored:
            self._runs = [run, *self._runs][:kept]

    def _forget(self, keep: int, in_use: set[int], reply: Sequence[bytes]) -> None:
        standing = sorted(set(self._generations) - self._forgotten)
        expected = set(standing[:-keep]) - in_use - {self._target}
        forgotten = {int(generation) for generation in reply}
        assert forgotten == expected, f"of {standing} {forgotten} are forgotten, not {expected}"
        self._forgotten |= forgotten

    def _lead(self, holder: str, now: int, until: int, reply: Sequence[Any]) -> None:
        held = self._holder not in ("", holder) and self._until > now
        assert (reply[0] == b"HELD") == held, f"{holder} asked for the lease that {self._holder} has: {reply}"
        if held:
            return
        token = int(reply[1])
        expected = self.newest + (holder != self._holder)
        assert token == expected, f"{holder} was given token {token}, not {expected}"
        self.newest, self._holder, self._until = token, holder, until
        self.leads += 1
