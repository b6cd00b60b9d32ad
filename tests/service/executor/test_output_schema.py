"""A schema that nobody could ever judge by, as a caller gives it: its own run pays for it, and no other one."""

from __future__ import annotations

from pathlib import Path

import pytest

from executor.adapters.capping import MAX_REASON_BYTES
from tests.service.executor.kit import executor_inside
from tests.unit.executor.test_answers import fork_of

WITHIN = "the answer could not be held against its schema within"


async def test_a_run_whose_schema_takes_for_ever_ends_in_time_and_another_one_does_not_notice(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state") as executor:
        await executor.begin("echo done", outputSchema=fork_of(40), providerOptions={"result": "json"})
        for number in range(3):
            await executor.begin("echo done", f"other_{number}")
            assert (await executor.ended(f"other_{number}"))["outcome"] == "success"
        assert (await executor.show())["status"] != "ended", "the others ended while it was judged"
        ended = await executor.ended()
        assert (ended["outcome"], ended["errorCode"]) == ("error", "output_invalid")
        assert ended["errorMessage"] in (f"{WITHIN} 5 s of work", f"{WITHIN} 15 s")


async def test_an_answer_that_fits_its_schema_is_the_result(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state") as executor:
        await executor.begin("echo done", outputSchema={"type": "object"}, providerOptions={"result": "json"})
        ended = await executor.ended()
        assert (ended["outcome"], ended["result"]) == ("success", {})


async def test_what_does_not_fit_is_told_without_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL_KEY", "own-secret-value")
    async with executor_inside(tmp_path / "state") as executor:
        number = {"properties": {"is": {"type": "integer"}}}
        await executor.begin("echo done", outputSchema=number, providerOptions={"result": "key"})
        ended = await executor.ended()
    assert ended["errorMessage"] == f'the answer does not fit its schema: is: "{"*" * 16}" is not of type "integer"'
    assert "own-secret" not in str(ended)


async def test_what_is_cut_off_of_a_reason_shows_no_beginning_of_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL_KEY", "own-secret-value")
    async with executor_inside(tmp_path / "state") as executor:
        number = {"properties": {"is": {"type": "integer"}}}
        await executor.begin("echo done", outputSchema=number, providerOptions={"result": "keys"})
        said = (await executor.ended())["errorMessage"]
    whole = f'the answer does not fit its schema: is: "{("*" * 16 + " ") * 200}" is not of type "integer"'
    assert said == whole[:MAX_REASON_BYTES]
