"""Which ids a file has used already."""

from __future__ import annotations


class SeenIds:
    """Remembers where each id of one file stands; about 125 bytes an id."""

    def __init__(self) -> None:
        self._where: dict[str, str] = {}

    def repeated(self, item_id: str, where: str) -> str:
        """Why `item_id` cannot be used again; empty, and remembered, the first time."""
        first = self._where.setdefault(item_id, where)
        return f"id {item_id!r} already stood at {first}" if first is not where else ""
