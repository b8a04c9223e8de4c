"""The search that an index answers by when it is not told another: kept beside its settings.

Rules
1. A plan is written whole, and only for the index it was chosen for: one script compares the nonce. Of two that are
   saved at once the later stands.
2. It carries that nonce, so that who opened an index knows whose plan was read.
3. For speed, never for correctness: whatever stands here, answers are exact about their candidates, and k of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.scripts import Scripts

log = logging.getLogger("stream_hash.plans")


class Plans:
    """The kept plan of one index. Each method is one round trip, and safe to repeat."""

    def __init__(self, client: Client, index: str, *, scripts: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._keys = IndexKeys(index)
        self._scripts = Scripts(client, scripts)

    def save(self, nonce: str, plan: Mapping[str, Any]) -> bool:
        """Keep a plan of JSON values. nonce : of the index it is for; False when that index is gone."""
        text = json.dumps({**plan, "nonce": nonce}, sort_keys=True)
        return bool(self._scripts("plan", [self._keys.settings], [nonce, text]))

    def forget(self, nonce: str) -> bool:
        """Keep none. False when the index of that nonce is gone."""
        return bool(self._scripts("plan", [self._keys.settings], [nonce, ""]))

    def read(self) -> dict[str, Any] | None:
        """What was saved, with its nonce. None if nothing was, or if it is damaged, which the log tells."""
        text = self._client.get(self._keys.plan)
        if text is None:
            return None
        try:
            found = json.loads(text)
            if isinstance(found, dict):
                return found
        except ValueError:
            pass
        log.warning("%r is no plan, and is left out", text[:80])
        return None
