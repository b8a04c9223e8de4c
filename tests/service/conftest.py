"""What several tests of the service begin with."""

from __future__ import annotations

from collections.abc import Iterator

import fakeredis
import pytest
from backup_support import COUNT, exported, filled

from stream_hash.service import export as export_module
from stream_hash.service.saved_plan import PlanKeeper, SavedPlan
from stream_hash.storage.connection import Client


@pytest.fixture(scope="session")
def archive() -> bytes:
    """Of the filled index. Its plan is saved."""
    with fakeredis.FakeRedis() as client:
        handle = filled(client)
        PlanKeeper(handle).save(SavedPlan(150, 90, 5, "recall", 0.9, 0.9, 0.01, 2, COUNT, 4.0))
        return exported(handle)


@pytest.fixture
def fake() -> Iterator[Client]:
    with fakeredis.FakeRedis() as client:
        yield client


@pytest.fixture(scope="session")
def small_blocks() -> bytes:
    """An archive of 29 items, in four blocks."""
    with fakeredis.FakeRedis() as client, pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, "ITEMS_A_BLOCK", 16)
        return exported(filled(client, count=50))
