"""stream_hash: streaming similarity search on Redis.

`Producer` puts items on the queue, `Index` answers queries; both are imported on first use, so that
a process which needs only one does not pay for the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_hash.client import Index as Index
    from stream_hash.producer import Producer as Producer

__version__ = "0.1.0"
__all__ = ["Index", "Producer", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Index":
        from stream_hash.client import Index

        return Index
    if name == "Producer":
        from stream_hash.producer import Producer

        return Producer
    raise AttributeError(f"module 'stream_hash' has no attribute {name!r}")
