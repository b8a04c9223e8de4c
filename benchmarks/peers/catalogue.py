"""All peers, by the names under which they are reported, and what runs them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import cast

from benchmarks.peers.peer import Peer


@dataclass(frozen=True)
class Entry:
    """module : inside this package. on_server : whether it keeps its index on the server."""

    module: str
    on_server: bool = False

    def load(self) -> Peer:
        """The module. Raises ImportError when the peer is not installed here."""
        return cast("Peer", importlib.import_module(f"benchmarks.peers.{self.module}"))


OURS = "stream_hash"
LSHRS = "LSHRS"
NEARPY = "NearPy"
LOOP = "tutorial's loop"
HNSWLIB = "hnswlib"

CATALOGUE = {
    OURS: Entry("ours", on_server=True),
    LSHRS: Entry("lshrs_bands", on_server=True),
    NEARPY: Entry("nearpy_engine", on_server=True),
    LOOP: Entry("tutorial_loop"),
    "exact numpy": Entry("exact_numpy"),
    "faiss IndexLSH": Entry("faiss_lsh"),
    "faiss IndexBinaryHash": Entry("faiss_binary_hash"),
    "faiss IVF": Entry("faiss_ivf"),
    HNSWLIB: Entry("hnswlib_graph"),
    "usearch": Entry("usearch_graph"),
}
