"""``/retry``: the same request once more, with the run it comes from in its metadata."""

from __future__ import annotations

import json

from shared.contracts.runs import MAX_METADATA_BYTES
from tests.service.control_plane.conftest import Replica
from tests.service.control_plane.fake_manager import FakeManager


async def _again(replica: Replica, manager: FakeManager, run_id: str, key: str) -> str:
    (await manager.begun(run_id)).end()
    await replica.until(run_id, "success")
    answer = await replica.http.post(f"/api/runs/{run_id}/retry", headers={"idempotency-key": key})
    assert answer.status_code == 202, answer.text
    return answer.json()["runId"]


async def test_what_a_retry_adds_to_metadata_does_not_count_against_its_limit(replica: Replica, manager: FakeManager) -> None:
    """And so for the retry of a retry, which names only the run it comes from."""
    metadata = {"note": ""}
    metadata["note"] = "x" * (MAX_METADATA_BYTES - len(json.dumps(metadata)))
    first = await replica.start(metadata=metadata)
    second = await _again(replica, manager, first, "k1")
    third = await _again(replica, manager, second, "k2")
    assert (await replica.show(second))["metadata"] == {**metadata, "retryOf": first}
    assert (await replica.show(third))["metadata"] == {**metadata, "retryOf": second}
    other = await replica.http.post(f"/api/runs/{first}/retry", headers={"idempotency-key": "k2"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict"), "it is the retry of another run"
