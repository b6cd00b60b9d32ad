"""What is true after every case, whatever it was about: nothing runs on, and nobody was shown a secret."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator

from shared.contracts.credentials import CREDENTIALS
from tests.conformance.ground import KEYS, OF_THE_SERVICE, Attempt, Ground
from tests.e2e.kit import no_process_of

GONE_SECONDS = 10


async def check(ground: Ground) -> None:
    """Every attempt of the case has ended by now."""
    for attempt in ground.attempts:
        await attempt.ended()
        await attempt.show()
        assert no_process_of(attempt.run_id, GONE_SECONDS), f"{attempt.run_id} left {attempt.pids}"
        _no_secret_of_others(attempt)
        async for name, content in _shown(attempt):
            no_secret_in(name, content)
    for content in ground.told:
        no_secret_in("what was told", content)


def _no_secret_of_others(attempt: Attempt) -> None:
    """In an engine's environment stand its own credentials, and nothing else that the executor knows."""
    own = CREDENTIALS[attempt.ground.engine.provider].names
    others = {**OF_THE_SERVICE, **{name: key for name, key in KEYS.items() if name not in own}}
    for environment in attempt.environments:
        for name, secret in others.items():
            assert secret.encode() not in environment, f"the engine was given {name}"


def no_secret_in(where: str, content: bytes) -> None:
    for name, secret in {**KEYS, **OF_THE_SERVICE}.items():
        assert secret.encode() not in content, f"{name} stands in {where}"


async def _shown(attempt: Attempt) -> AsyncIterator[tuple[str, bytes]]:
    for stream in ("stdout", "stderr"):
        yield stream, await attempt.log(stream)
    answer = await attempt.ground.http.get(f"/provider-runs/{attempt.run_id}/bundle")
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as bundle:
        for name in bundle.namelist():
            yield f"the bundle's {name}", bundle.read(name)
