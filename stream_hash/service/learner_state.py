"""What a trainer keeps from run to run: its learner, and the cursor up to which that has learned, in one text of bytes.

Format: 64 hexadecimal digits of SHA-256, then the npz bytes that they are of (codec.py); no pickle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import IntegrityError
from stream_hash.storage.codec import decode_model, encode_model
from stream_hash.storage.store import Identity

VERSION: Final = 1
_DIGITS: Final = 64
_LEARNER: Final = "learner."


@dataclass(frozen=True)
class LearnerState:
    """kind : of the learner. index : the identity of the index it learned from, as text. cursor : the highest sequence
    number of a label that was open to it. judged : the generation it was last compared with, or became.
    arrays : of the learner; none if it cannot be continued.
    """

    kind: str
    index: str
    cursor: int
    judged: int
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        own = {
            "version": np.array(VERSION),
            "kind": np.array(self.kind),
            "index": np.array(self.index),
            "cursor": np.array(self.cursor, dtype=np.int64),
            "judged": np.array(self.judged, dtype=np.int64),
        }
        raw, sha256 = encode_model(own | {_LEARNER + name: value for name, value in self.arrays.items()})
        return sha256.encode() + raw

    @classmethod
    def from_bytes(cls, stored: bytes) -> LearnerState:
        """Raises IntegrityError when these are not the bytes that `to_bytes` wrote."""
        arrays = decode_model(stored[_DIGITS:], stored[:_DIGITS].decode("ascii", "replace"))
        if "version" not in arrays or int(arrays["version"]) != VERSION:
            raise IntegrityError("the stored learner is of another version", why=f"this version writes {VERSION}")
        own = {name.removeprefix(_LEARNER): value for name, value in arrays.items() if name.startswith(_LEARNER)}
        numbers = int(arrays["cursor"]), int(arrays["judged"])
        return cls(str(arrays["kind"]), str(arrays["index"]), *numbers, own)


def identity_text(identity: Identity) -> str:
    """An index's settings and nonce: a learner of another index must not be continued."""
    return f"{identity.nonce} {identity.settings.to_json()}"
