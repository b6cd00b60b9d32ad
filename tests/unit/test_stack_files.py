"""The files and ports of a local stack: private, whole, bounded, and never given twice."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx
import pytest

from runyard.local_stack import ports, service_process
from runyard.local_stack.ports import choose_ports
from runyard.local_stack.ready_file import ReadyFiles, read_ready_file
from runyard.local_stack.service_process import ServiceProcess
from runyard.local_stack.services import Service, Tier
from runyard.local_stack.stack import SECRETS, StackError, StackOptions, keep_secrets
from runyard.local_stack.supervisor import _ports_soon


def test_secrets_are_made_once_and_are_private(tmp_path: Path) -> None:
    made = keep_secrets(tmp_path)
    assert keep_secrets(tmp_path) == made
    assert made.admin_key.startswith("ry_admin_")
    assert made.service_token not in made.admin_key
    assert (tmp_path / SECRETS).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "[]", '{"serviceToken": "x"}'])
def test_secrets_that_cannot_be_read_are_never_replaced_silently(tmp_path: Path, text: str) -> None:
    (tmp_path / SECRETS).write_text(text)
    with pytest.raises(StackError, match="cannot be read"):
        keep_secrets(tmp_path)


def test_free_ports_are_all_different() -> None:
    chosen = choose_ports(StackOptions(Path(), port=0, executors=20, control_planes=5, managers=5))
    assert len({*chosen.control_planes, *chosen.managers, *chosen.executors}) == 30


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} cannot be used"):
            choose_ports(StackOptions(Path(), port=port))


def test_ports_that_overlap_are_refused_before_anything_starts() -> None:
    with pytest.raises(StackError, match="cannot be used"):
        choose_ports(StackOptions(Path(), port=3010))


def test_a_ready_file_is_written_only_when_it_says_something_new(tmp_path: Path) -> None:
    file = tmp_path / "made" / "ready.json"
    files = ReadyFiles([file, file])
    files.show({"pid": 1})
    first = file.stat().st_ino
    files.show({"pid": 1})
    assert file.stat().st_ino == first
    files.show({"pid": 2})
    assert read_ready_file(file) == {"pid": 2}
    assert [path.name for path in file.parent.iterdir()] == ["ready.json"]
    files.remove()
    assert read_ready_file(file) is None


async def test_a_log_is_bounded_and_its_last_part_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_process, "MAX_LOG_BYTES", 100)
    service = Service("talker", Tier.MANAGER, "http://127.0.0.1:9", (), {})
    async with httpx.AsyncClient() as client:
        process = ServiceProcess(service, tmp_path, client)
        process.log.parent.mkdir()
        with process.log.open("ab") as appending:
            appending.write(b"x" * 101)
            appending.flush()
            process.bound_log()
            appending.write(b"still here")
    assert process.log.read_bytes() == b"still here"
    assert process.log.with_suffix(".log.1").read_bytes() == b"x" * 101
    assert process.last_words() == "still here"


async def test_a_port_that_a_killed_stack_still_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MANAGER_PORT", "EXECUTOR_PORT"):
        monkeypatch.setattr(ports, name, 0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = StackOptions(tmp_path, port=taken.getsockname()[1])
        choosing = asyncio.create_task(_ports_soon(options))
        await asyncio.wait({choosing}, timeout=0.3)
        assert not choosing.done()
    async with asyncio.timeout(10):
        assert (await choosing).control_planes == (options.port,)
