"""No secret of the services stands in the environment of an engine, or of anything it starts."""

from __future__ import annotations

import json
from pathlib import Path

from executor.processes import procfs
from tests.e2e.kit import Stack, script

NAMES = ["RUNYARD_SERVICE_TOKEN", "RUNYARD_ADMIN_KEY", "DATABASE_URL", "RUNYARD_API_KEY"]


def secrets_of(stack: Stack) -> list[str]:
    facts = stack.facts
    return [facts["serviceToken"], facts["apiKey"], facts["databaseUrl"]]


def started_with(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_no_process_of_an_engine_carries_a_secret_of_the_services(stack: Stack) -> None:
    started = script(
        {"env": NAMES}, {"spawn": ["sleep", "60"], "setsid": True}, {"ask": {"prompt": "go on?", "options": ["yes"]}}
    )
    run_id = await stack.start(started)
    question = await stack.question(run_id)
    processes = {pid for pid in procfs.snapshot() if (procfs.variable(pid, "RUNYARD_RUN") or "").startswith(f"{run_id}.")}
    assert len(processes) >= 2
    for pid in processes:
        seen = started_with(pid)
        assert not [secret for secret in secrets_of(stack) if secret.encode() in seen]
    await stack.reply(run_id, question["questionId"], answer="yes")
    await stack.until(run_id, "success")
    said = [event["data"]["text"] for event in await stack.check(run_id) if event["kind"] == "message.completed"]
    assert json.loads(said[0]) == dict.fromkeys(NAMES)
