"""An opened index: its stores, its settings, and the models of the generations that are in use.

A model never changes, so it is cached for good; which generations a partition uses does change, so that is
cached only until a write or a search is told that it is stale.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stream_hash.clock import now_seconds
from stream_hash.errors import GenerationGoneError, ModelMissingError
from stream_hash.numerics.model import Model, lsh_model
from stream_hash.service.directories import Directories
from stream_hash.settings import IndexSettings, check_name
from stream_hash.storage.buckets import BucketReader
from stream_hash.storage.connection import Client
from stream_hash.storage.generations import Generations
from stream_hash.storage.ledger import Ledger
from stream_hash.storage.live_quality import LiveQuality
from stream_hash.storage.models import Models
from stream_hash.storage.reads import Reader
from stream_hash.storage.store import State, Store
from stream_hash.storage.trainer_state import TrainerState

FIRST_GENERATION = 1


class IndexHandle:
    """One index, opened. Not thread-safe: a thread opens its own."""

    def __init__(self, client: Client, name: str) -> None:
        """Raises IndexMissingError when there is no such index."""
        self.name = check_name(name)
        self.client = client
        self.store = Store(client, name)
        self.ledger = Ledger(client, name)
        self.models = Models(client, name)
        self.reopen()

    def reopen(self) -> None:
        """Read everything anew: the index was wiped, and one of its name was created again."""
        self.identity = self.store.settings()
        self.store = Store(self.client, self.name, nonce=self.identity.nonce)
        self.trainer = TrainerState(self.client, self.name, self.identity.nonce)
        self.quality = LiveQuality(self.client, self.name, self.identity.nonce)
        self.reader = Reader(self.client, self.name, self.settings)
        self.buckets = BucketReader(self.client, self.name, self.settings)
        self.directories = Directories(self.buckets, self.settings)
        self.generations = Generations(self.client, self.name, self.identity)
        self.states: list[State] = self.store.states(self.settings.partitions)
        # live and building of every partition, and those of a moment ago
        self.model = lru_cache(maxsize=8)(self._load_model)

    @property
    def settings(self) -> IndexSettings:
        return self.identity.settings

    def reload_states(self) -> None:
        """Read again which generations each partition uses."""
        self.states = self.store.states(self.settings.partitions)

    def _load_model(self, generation: int) -> Model:
        """Raises GenerationGoneError, having read anew which are in use, when it went out of use long ago."""
        try:
            return Model.from_arrays(self.models.load(generation))
        except ModelMissingError:
            self.reload_states()
            if any(generation in state.writable for state in self.states):
                raise
            raise GenerationGoneError(f"generation {generation} of index {self.name!r} is out of use") from None

    def begin_first_generation(self, sample: NDArray[np.float32]) -> None:
        """Publish generation 1, plain LSH about the mean of `sample`, and let it go live.

        When several workers come here at once the first to publish decides, and all use its model; when one
        dies between the two steps, the next to come takes the second. Raises IndexMissingError when the index was
        wiped.
        """
        model = lsh_model(self.settings, sample)
        nonce = self.identity.nonce
        self.models.publish(nonce, FIRST_GENERATION, model.to_arrays(), kind="lsh", created=now_seconds())
        self.store.activate(self.settings, FIRST_GENERATION, nonce)
        self.reload_states()
