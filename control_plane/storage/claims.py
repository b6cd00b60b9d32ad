"""Claims where caps are set: who lives is counted and added to under one lock, so that two replicas never overstep a cap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from control_plane.domain.line import Ageing, Caps, Claimable, Living, admitted
from control_plane.domain.run import Lease
from control_plane.storage.queries import load

_SQL = load("claims")
LOOKED_AT = 512  # of the line, at once: whoever is full is left out of it beforehand


@dataclass(frozen=True, slots=True)
class Asked:
    """What a replica wants to claim, as ``RunStore.claim`` has it."""

    limit: int
    lease_seconds: float
    driven: list[str]
    closed: list[str]


async def claim_within(connection: Any, caps: Caps, ageing: Ageing, asked: Asked) -> list[Lease]:
    """As ``RunStore.claim``, in the caller's transaction; runs above a cap keep their places in the line."""
    await connection.execute(_SQL["lock"])
    living = Living()
    for row in await connection.fetch(_SQL["living"]):
        living.apps[row["app_id"]] += row["runs"]
        living.providers[row["provider"]] += row["runs"]
    rows = await connection.fetch(
        _SQL["line"], LOOKED_AT, asked.driven, asked.closed, living.full_apps(caps), living.full_providers(caps),
        ageing.seconds, ageing.most,
    )  # fmt: skip
    line = [Claimable(row["run_id"], row["app_id"], row["provider"], row["is_new"]) for row in rows]
    taken = await connection.fetch(_SQL["claim_these"], admitted(line, living, caps, asked.limit), asked.lease_seconds)
    return [Lease(row["run_id"], row["lease_token"]) for row in taken]
