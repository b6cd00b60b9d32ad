"""The whole environment of an engine: an allow-list, what adapter and caller add, credentials, marks. Nothing is inherited."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from shared.contracts.environment import may_be_set
from shared.errors import invalid

INHERITED = ("PATH", "TZ")
FIXED = {"LANG": "C.UTF-8", "TERM": "dumb"}
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"


def refuse_reserved(env: Mapping[str, str], credential_names: Collection[str]) -> None:
    """Raises ``invalid_request`` for a variable a caller may not set in ``env``: ours, or the name of a credential."""
    for name, value in env.items():
        _refuse_ours("env", name, value)
        if name in credential_names:
            raise invalid(f"env.{name[:64]}", "a credential is set by the app, never by a request")


def credentials_for(names: Collection[str], own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The engine's credentials: the executor's own by name, over them those that came with the start. Empty ones are none."""
    for name, value in given.items():
        _refuse_ours("credentialEnv", name, value)
    merged = {**{name: own[name] for name in names if name in own}, **given}
    return {name: value for name, value in merged.items() if value}


def _refuse_ours(where: str, name: str, value: str) -> None:
    if not may_be_set(name, value):
        raise invalid(f"{where}.{name[:64]}", "this variable cannot be set")


def engine_environment(
    own: Mapping[str, str],
    places: Mapping[str, str],
    asked: Mapping[str, str],
    adapter: Mapping[str, str],
    credentials: Mapping[str, str],
    marks: Mapping[str, str],
) -> dict[str, str]:
    """Later ones win. ``places``: HOME and TMPDIR; ``asked``: the request's ``env``; ``adapter``: what the engine needs."""
    inherited = {name: own[name] for name in INHERITED if name in own}
    return {"PATH": DEFAULT_PATH, **FIXED, **inherited, **asked, **places, **adapter, **credentials, **marks}
