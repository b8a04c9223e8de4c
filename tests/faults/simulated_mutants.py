"""The protocol with one rule taken out, of a script or of the Python around it: the simulation must notice.

The scripts' mutants are those of test_protocol.py, where each is caught by a scenario made for it. Here nothing is made
for any of them, but the faults. Left out, by name and with the reason, are those that no order of events can show.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import test_protocol

from stream_hash.service import directories, gathering, ingest, ranking, reindex, sweep
from stream_hash.storage import generations, trainer_state
from stream_hash.storage.scripts import sources

IN_PYTHON: Mapping[str, tuple[ModuleType, tuple[tuple[str, str], ...]]] = {
    # name: (module, (text, what stands in its place), ...)
    "a search does not check live": (
        gathering,
        (
            (
                "if any(found.live != probe.generation for probe, found in zip(probes, gathered, strict=True)):",
                "if False:",
            ),
        ),
    ),
    "a search does not miss deleted candidates": (
        ranking,
        (("if any(answer.reranked < min(k, answer.candidates) for answer in answers):", "if False:"),),
    ),
    "a search does not widen": (gathering, (("if widen:", "if False:"),)),
    "a search does not learn of new buckets": (
        directories,
        (("return [table.add(codes) for table, codes in", "return [codes[:0] for _, codes in"),),
    ),
    "a search learns of new buckets and does not gather again": (
        gathering,
        (
            (
                "            if queries:\n                for probe, one",
                "            if False:\n                for probe, one",
            ),
        ),
    ),
    "a search does not mind that a list was begun anew": (
        directories,
        (
            (
                "if len(opened) < len(found.opened) or",
                "opened = [np.zeros(0, np.uint64) if c is None else c for c in found.opened]\n        if",
            ),
        ),
    ),
    "a worker takes STALE for done": (
        ingest,
        (("self._handle.states[partition] = outcome.state\n                continue", "return"),),
    ),
    "a worker finishes before it writes": (
        ingest,
        (("    application = _Application(", "    handle.ledger.finish(batch_id)\n    application = _Application("),),
    ),
    "a worker hashes for the live generation only": (
        ingest,
        (
            (
                "self._hash(generation)[positions] for generation in state.writable]",
                "self._hash(state.live)[positions] for _ in state.writable]",
            ),
        ),
    ),
    "values are read before the generation is begun": (
        reindex,
        (
            (
                "        given = self._begin(partition)\n",
                "        self._handle.early = {\n"
                "            (partition, n): self._handle.reader.values([(partition, np.arange(n, n + 2))])[0]\n"
                "            for n in range(0, 20, 2)\n"
                "        }\n"
                "        given = self._begin(partition)\n",
            ),
            (
                "        values = handle.reader.values(",
                "        early = getattr(handle, 'early', {}).get((partition, chunk * CHUNK + start))\n"
                "        values = early or handle.reader.values(",
            ),
        ),
    ),
    "the sweep forgets all tombstones": (
        sweep,
        (("floor = handle.ledger.floor()", "floor = handle.ledger.last_sequence() + 1"),),
    ),
    "the sweep does not mind dead letters": (
        sweep,
        (("floor = handle.ledger.floor()", "floor = handle.ledger.horizon()"),),
    ),
    "a re-indexer does not mind being fenced": (
        generations,
        (('if reply[0] == b"FENCED":', "if False:"),),
    ),
    "a trainer does not mind being fenced": (
        trainer_state,
        (('if reply[0] == b"FENCED":', "if False:"),),
    ),
}

_SAME = "it comes to the same: "
_SIZE = "it takes more than a simulated index has: "
LEFT_OUT: Mapping[str, str] = {
    "all buckets listed": _SAME + "a searcher learns of buckets that it knows",
    "begun anew each time": _SAME + "searchers read the directory more often",
    "counted and not begun anew": _SAME + "searchers read the directory more often",
    "opened buckets for ever": _SAME + "a list that is longer tells the same",
    "lists as short for all": _SIZE + "a directory of thousands of buckets",
    "put though there": _SAME + "a set holds a member once, and what is put follows from the value alone",
    "only the last table complete": "a script puts an item into all tables or none, so that none counts more",
    "only the first table complete": "a script puts an item into all tables or none, so that none counts more",
    "places of any length": "no caller sends such a request",
    **dict.fromkeys(
        (name for name in test_protocol.MUTANTS if name.endswith((" of another index", "into another index"))),
        "no index is wiped while the simulation runs",
    ),
    "activated for an index that was wiped": "no index is wiped while the simulation runs",
    "plans of another index kept": "no index is wiped while the simulation runs",
    "released twice": "it takes a lost reply to the one call that gives a batch back, which is seldom",
    "released for any reason": "it takes a batch that is given back in the millisecond in which its lease runs out",
    "no capacity": _SIZE + "2^24 items",
    **dict.fromkeys(
        (
            *("any index of the name is dropped", "not gone on with", "settings left", "created among what goes"),
            *("accepted for nobody", "begun for nobody", "written though dropped", "purged though dropped"),
            *("activated though dropped", "begun though dropped", "retired though dropped", "retried when dropped"),
        ),
        "no index is dropped while the simulation runs",
    ),
    **{
        name: "nobody imports an index, saves a plan or tells what queries cost while the simulation runs"
        for name, (script, *_) in test_protocol.MUTANTS.items()
        if script.startswith(("import_", "plan", "tally")) or name == "created over an import"
    },
    "retried though lapsed": _SIZE + "letters lapse when there are 100,000 tombstones",
    **dict.fromkeys(
        (
            "anew under the old numbers",
            "anew and not counted as dropped",
            "anew and not counted as accepted",
        ),
        "nobody retries anew: what would be newest, the order of events would have to say",
    ),
    "the newest forgotten": "no caller keeps none",
    "the target forgotten": "the target is the newest generation, which is kept for that",
    "the first by a trainer": "no trainer publishes before something is live",
    "nobody asked": _SIZE + "figures enough to tell a drop from chance",
}
"""Mutants of the scripts that no order of events can show, each with the reason."""

NAMES = (*IN_PYTHON, *(name for name in test_protocol.MUTANTS if name not in LEFT_OUT))


@contextmanager
def mutated(name: str) -> Iterator[Mapping[str, str]]:
    """The scripts without the rule, and inside the block the Python too."""
    if name in test_protocol.MUTANTS:
        yield test_protocol.scripts_without(name)
        return
    module, changes = IN_PYTHON[name]
    source = inspect.getsource(module)
    for text, replacement in changes:
        assert text in source, f"{module.__name__} has no such text (any more): {text}"
        source = source.replace(text, replacement)
    namespace = dict(vars(module))
    exec(compile(source, module.__file__ or name, "exec"), namespace)  # noqa: S102 - our own source, one rule short
    changed = _functions(namespace, module.__name__)
    before = {function: function.__code__ for function in _functions(vars(module), module.__name__).values()}
    try:
        # only the code changes: a class is still the one that other modules know
        for path, function in _functions(vars(module), module.__name__).items():
            function.__code__ = changed[path].__code__
        yield sources()
    finally:
        for function, code in before.items():
            function.__code__ = code


def _functions(namespace: Mapping[str, Any], module: str) -> dict[str, FunctionType]:
    """The functions of a module and of its classes, by their qualified names."""
    found = {}
    for thing in namespace.values():
        for one in vars(thing).values() if isinstance(thing, type) else (thing,):
            if isinstance(one, FunctionType) and one.__module__ == module and one.__code__.co_filename != "<string>":
                found[one.__qualname__] = one
    return found
