"""Hashers measured in a real index: what a search over the server finds, and how long it takes.

For each hasher a temporary index is filled, searched and discarded. Generation 1 gets the hasher's hyperplanes
in place of its random ones; nothing else differs from an index that is in use. It ranks by the cosine of the
vectors as they are, not about their mean as the tutorial does, so that the exact search differs a little
from the one in memory.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.clock import now_seconds
from stream_hash.numerics.comparison import Data, Settings, Trial, What
from stream_hash.numerics.evaluation import recall_at_k
from stream_hash.numerics.methods import Hasher, fitted, hyperplanes_of
from stream_hash.numerics.model import Model, lsh_model
from stream_hash.service.answer import Answer
from stream_hash.service.handle import FIRST_GENERATION, IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.service.plan import Plan
from stream_hash.service.search import Searcher
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import Client
from stream_hash.storage.discard import discard
from stream_hash.storage.store import Store

BATCH_ITEMS: Final = 1_000
CHECKED_ITEMS: Final = 100
"""Training items on which a hasher's hyperplanes are checked."""


def compare_in_index(
    client: Client, data: Data, settings: Settings, show: Callable[[str], None] = lambda _: None
) -> Iterator[Trial]:
    """As `numerics.comparison.compare`, over temporary indexes; without Hamming rankings, which no search makes.

    Raises StreamHashError for a hasher that an index cannot hold, before anything is written.
    """
    models = {}
    for method in settings.methods:
        for bits in settings.bits:
            show(f"training {method} with {bits} bits")
            models[method, bits] = model_of(method, bits, data)
    truth: list[list[str]] = []
    for (method, bits), model in models.items():
        with temporary_index(client, model, data.database, show) as handle:
            search = _Search(Searcher(handle), data, settings.k, truth)
            if not truth:
                show("exact search")
                answers = search.answers(Plan(exact=True))
                truth += [[result.id for result in answer.results] for answer in answers]
                yield Trial(What("exact", None, "exact"), search.measures(answers))
            for radius in settings.radii_of(bits):
                show(f"searching {method} with {bits} bits, radius {radius}")
                plan = Plan(radius=radius, widen=False)
                yield Trial(What(method, bits, "radius", radius), search.measures(search.answers(plan)))
            for budget in settings.budgets:
                show(f"searching {method} with {bits} bits, budget {budget}")
                plan = Plan(budget=budget, fetch=None, widen=False)
                yield Trial(What(method, bits, "budget", budget), search.measures(search.answers(plan)))


def model_of(method: str, bits: int, data: Data) -> Model:
    """The model of generation 1, with the hyperplanes of a hasher trained on the data."""
    hasher: Hasher = fitted(method, bits, data.seed, data.training, data.target)
    weights, offsets = hyperplanes_of(hasher, data.training[:CHECKED_ITEMS], f"{method} with {bits} bits")
    plain = lsh_model(IndexSettings(dimension=len(data.mean), bits=bits), np.zeros((0, len(data.mean)), np.float32))
    all_offsets = np.zeros(len(plain.offsets), dtype=np.float32)
    all_offsets[:bits] = offsets + weights @ data.mean  # a model takes its mean off before it multiplies
    return replace(
        plain,
        mean=data.mean,
        hyperplanes=np.concatenate([weights, plain.hyperplanes[bits:]]),
        offsets=all_offsets,
    )


@contextmanager
def temporary_index(
    client: Client,
    model: Model,
    vectors: NDArray[np.float32],
    show: Callable[[str], None] = lambda _: None,
    settings: IndexSettings | None = None,
    labels: list[str] | None = None,
    metadata: list[str] | None = None,
) -> Iterator[IndexHandle]:
    """An index with a given model, filled from this process; deleted at the end. Ids are row numbers.

    settings : those that fit the model, if not the plain ones of its dimension and bits. labels, metadata : JSON text
    of each item.
    """
    name = f"evaluate-{secrets.token_hex(4)}"
    settings = settings or IndexSettings(dimension=model.dimension, bits=model.bits)
    Store(client, name).create(settings)
    try:
        handle = IndexHandle(client, name)
        nonce = handle.identity.nonce
        handle.models.publish(nonce, FIRST_GENERATION, model.to_arrays(), kind="evaluated", created=now_seconds())
        handle.store.activate(settings, FIRST_GENERATION, nonce)
        handle.reload_states()
        for start in range(0, len(vectors), BATCH_ITEMS):
            show(f"filling an index: {start} of {len(vectors)} items")
            some = vectors[start : start + BATCH_ITEMS]
            part = slice(start, start + len(some))
            ids, texts = [str(row) for row in range(start, part.stop)], (labels, metadata)
            batch = Batch("upsert", ids, some, *(None if one is None else one[part] for one in texts))
            handle.ledger.accept(f"from-{start}", batch, lease_until=0)
            apply_batch(handle, f"from-{start}")
        yield handle
    finally:
        discard(client, name, settings)


@dataclass(frozen=True)
class _Search:
    """Searches of one index, and how good their answers are. truth : the ids that exact search found, or empty."""

    searcher: Searcher
    data: Data
    k: int
    truth: Sequence[Sequence[str]]

    def answers(self, plan: Plan) -> list[Answer]:
        """An exact search reads the index once for all; the others one by one, since their time is measured."""
        if plan.exact:
            return self.searcher.search(self.data.queries, self.k, plan)
        return [self.searcher.search(query[None, :], self.k, plan)[0] for query in self.data.queries]

    def measures(self, answers: Sequence[Answer]) -> dict[str, NDArray[np.float64]]:
        marks = np.zeros((len(answers), self.k))
        recalls = np.zeros(len(answers))
        for row, answer in enumerate(answers):
            found = [result.id for result in answer.results]
            marks[row, : len(found)] = self.data.relevant(np.array([row]))[0][[int(item_id) for item_id in found]]
            recalls[row] = recall_at_k(found, self.truth[row], self.k)
        return {
            "precision_at_k": marks.mean(axis=1),
            "semantic_accuracy": marks[:, 0],
            "recall_at_k": recalls,
            "candidates": np.array([float(answer.candidates) for answer in answers]),
            "milliseconds": np.array([1e3 * answer.seconds for answer in answers]),
        }
