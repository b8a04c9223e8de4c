"""The schema: every key of an index, its type, its meaning.

`{N}` and `{N:p}` are hash tags: all keys of index N as a whole share one slot, and so do all keys of its
partition p. A script therefore always works on one node, and is atomic there.

Of an index, under `sh:{N}:`

| key            | type   | content                                                                      |
|----------------|--------|------------------------------------------------------------------------------|
| settings       | string | JSON of IndexSettings and a nonce, new each time the index is created; of    |
|                |        | one that was imported also the digest of its archive                         |
| generations    | hash   | generation → JSON record: sha256, kind, created (Unix seconds), parent,      |
|                |        | origin, figures (models.py)                                                  |
| model:G        | string | the model of generation G: npz bytes, never changed once written             |
| sequence       | string | the last sequence number given out                                           |
| batch:B        | string | payload of pending batch B                                                   |
| pending        | zset   | batch → its first sequence number; oldest first                              |
| leases         | zset   | pending batch → Unix milliseconds until which nobody else need deliver it    |
| sizes          | hash   | pending batch → how many items it holds                                      |
| arrived        | hash   | pending batch → Unix milliseconds of its acceptance or retry, by who asked    |
| attempts       | hash   | pending batch → how often a worker has begun it                              |
| begun          | hash   | pending batch → the name of the last attempt, made up by who began it        |
| failures       | hash   | pending batch → why the last attempt failed                                  |
| receipt:B      | string | first sequence number of finished batch B; expires after an hour              |
| dead           | hash   | dead letter: first sequence number → JSON header, newline, batch payload     |
| held           | zset   | those of the dead letters that can be retried in their place → the same      |
|                |        | number: the partitions' floors stay below it                                 |
| counters       | hash   | accepted, applied, dead, dropped: items since the index was created          |
| dropping       | string | the settings of an index that is being dropped; all else is on its way out   |
| tallies        | hash   | what has happened since then, for people: name → count (tallies.py)          |
| trainer        | hash   | token (the newest trainer's), holder, until (Unix milliseconds), target: the |
|                |        | generation that every partition shall have live; asked (Unix seconds) and    |
|                |        | asked_why: when somebody last asked for training                             |
| learner        | string | a trainer's state, with the cursor up to which it has learned                |
| runs           | list   | JSON records of the last 100 runs of training and rollbacks, newest first    |
| progress       | string | JSON: what the trainer is doing, for people; expires                         |
| figures        | zset   | JSON [sequence number, generation, precision@10] of items that were asked     |
|                |        | before they were stored, not yet in quality → sequence number                |
| quality        | hash   | folded: the sequence number below which all figures are in summary; summary: |
|                |        | JSON of their series, their drift and their means by generation              |
| plan           | string | JSON: the search that was chosen by tuning, with the nonce of its index      |
| import         | hash   | while an index is imported, before it has settings (imports.py): archive     |
|                |        | (digest), settings, nonce ('' once given up), done (blocks), items, since    |
| answer:R       | string | JSON: what became of request R to train; expires after an hour               |

Of a partition, under `sh:{N:p}:`

| key            | type   | content                                                                      |
|----------------|--------|------------------------------------------------------------------------------|
| state          | hash   | live, building (generation or ''), floor, next (item number), items (count), |
|                |        | nonce (the index's), tables, code_bytes (of a code in a place), token (the   |
|                |        | newest seen of a trainer), retiring (generations that still have keys, with  |
|                |        | commas between), members:G:t (what directory:G:t sums up to), cleared:G:t    |
|                |        | (how often opened:G:t was begun anew)                                        |
| records        | hash   | id → JSON record: number, sequence, label, its sequence, metadata            |
| value:n        | string | item number n: sequence, vector and id (codec.py)                            |
| free           | list   | item numbers given back by deletes                                           |
| tombstones     | zset   | deleted or not yet written id → sequence number                              |
| labelled       | zset   | item number of a labelled item → sequence number of its label                |
| bucket:G:t:c   | set    | members with code c in table t of generation G                               |
| directory:G:t  | hash   | code → how many members, for each non-empty bucket of that table             |
| opened:G:t     | list   | codes of the buckets of that table that became non-empty, oldest first, since |
|                |        | it was last begun anew: what a searcher that has the directory has missed    |
| places:G:B     | string | places of item numbers 512 B to 512 B + 511 in generation G (places.py)      |
| built:G        | string | bitmap: which chunks of 1,024 item numbers are in the generation being built |
| dropped:NONCE  | string | the index of that nonce was dropped; expires after a day                     |

A *member* is one positive 63-bit integer, 39 signature bits above the 24-bit item number: it stays in an
intset (8 bytes), and a candidate can be pruned by its signature before its vector is fetched.

Outside any index: `sh:indexes`, the set of their names; `sh:imports`, of those that are being imported;
`sh:malformed-job:ID`, job hashes set aside (on a cluster `sh:malformed-job:TAG:ID`, with the hash tag of RQ's own
keys); and RQ's keys, which are RQ's affair.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

INDEXES = "sh:indexes"
IMPORTS = "sh:imports"


@dataclass(frozen=True)
class IndexKeys:
    """The keys of one index as a whole."""

    index: str

    @cached_property
    def prefix(self) -> str:
        return f"sh:{{{self.index}}}:"

    @property
    def settings(self) -> str:
        return self.prefix + "settings"

    @property
    def generations(self) -> str:
        return self.prefix + "generations"

    def model(self, generation: int) -> str:
        return f"{self.prefix}model:{generation}"

    @property
    def sequence(self) -> str:
        return self.prefix + "sequence"

    @property
    def trainer(self) -> str:
        return self.prefix + "trainer"

    @property
    def learner(self) -> str:
        return self.prefix + "learner"

    @property
    def runs(self) -> str:
        return self.prefix + "runs"

    @property
    def progress(self) -> str:
        return self.prefix + "progress"

    @property
    def figures(self) -> str:
        return self.prefix + "figures"

    @property
    def quality(self) -> str:
        return self.prefix + "quality"

    @property
    def plan(self) -> str:
        return self.prefix + "plan"

    @property
    def importing(self) -> str:
        return self.prefix + "import"

    def answer(self, request: str) -> str:
        return f"{self.prefix}answer:{request}"

    @property
    def pending(self) -> str:
        return self.prefix + "pending"

    @property
    def sizes(self) -> str:
        return self.prefix + "sizes"

    @property
    def dead(self) -> str:
        return self.prefix + "dead"

    @property
    def held(self) -> str:
        return self.prefix + "held"

    @property
    def counters(self) -> str:
        return self.prefix + "counters"

    @property
    def arrived(self) -> str:
        return self.prefix + "arrived"

    @property
    def tallies(self) -> str:
        return self.prefix + "tallies"

    @property
    def dropping(self) -> str:
        return self.prefix + "dropping"

    def batch(self, batch: str) -> str:
        return f"{self.prefix}batch:{batch}"

    def partition(self, number: int) -> PartitionKeys:
        return PartitionKeys(self.index, number)


@dataclass(frozen=True)
class PartitionKeys:
    """The keys of one partition."""

    index: str
    number: int

    @cached_property
    def prefix(self) -> str:
        return f"sh:{{{self.index}:{self.number}}}:"

    @property
    def state(self) -> str:
        return self.prefix + "state"

    @property
    def records(self) -> str:
        return self.prefix + "records"

    @property
    def tombstones(self) -> str:
        return self.prefix + "tombstones"

    @property
    def free(self) -> str:
        return self.prefix + "free"

    @property
    def labelled(self) -> str:
        return self.prefix + "labelled"

    def value(self, number: int) -> str:
        return f"{self.prefix}value:{number}"

    def bucket(self, generation: int, table: int, code: int) -> str:
        return f"{self.prefix}bucket:{generation}:{table}:{code}"

    def buckets(self, generation: int, table: int) -> str:
        """What the keys of a table's buckets begin with; the code follows."""
        return f"{self.prefix}bucket:{generation}:{table}:"

    def directory(self, generation: int, table: int) -> str:
        return f"{self.prefix}directory:{generation}:{table}"

    def opened(self, generation: int, table: int) -> str:
        return f"{self.prefix}opened:{generation}:{table}"

    def places(self, generation: int, block: int) -> str:
        return f"{self.prefix}places:{generation}:{block}"

    def built(self, generation: int) -> str:
        return f"{self.prefix}built:{generation}"

    def dropped(self, nonce: str) -> str:
        return f"{self.prefix}dropped:{nonce}"


def partition_of(item_id: str, partitions: int) -> int:
    """The partition an id lives in: CRC-32 of its UTF-8 bytes, stable over machines and versions."""
    return zlib.crc32(item_id.encode()) % partitions if partitions > 1 else 0
