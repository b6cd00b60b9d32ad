"""What a service says when it is told nonsense: the variable's name and the reason, and no value of any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from control_plane.settings import Settings
from executor_manager.settings import Settings as ManagerSettings
from runyard.local_stack.environment import handed_down
from shared.settings import is_secret


def test_a_refused_setting_is_named_and_no_value_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("RUNYARD_ADMIN_KEY", "never-shown")
    monkeypatch.setenv("CONTROL_PLANE_PORT", "shown-neither")
    with pytest.raises(ValidationError) as refusal:
        Settings()  # pyright: ignore[reportCallIssue]
    said = str(refusal.value)
    assert "DATABASE_URL" in said
    assert "CONTROL_PLANE_PORT" in said
    assert "never-shown" not in said
    assert "shown-neither" not in said


@pytest.mark.parametrize(
    ("service", "variable"),
    [
        ("control_plane", "CONTROL_PLANE_PORT"),
        ("executor_manager", "EXECUTOR_MANAGER_PORT"),
        ("executor.server", "EXECUTOR_SLOTS"),
    ],
)
def test_a_service_ends_at_a_bad_setting_naming_it_and_without_a_traceback(service: str, variable: str, tmp_path: Path) -> None:
    told = {"DATABASE_URL": "postgresql://x", "RUNYARD_SERVICE_TOKEN": "t", "EXECUTOR_STATE_DIR": str(tmp_path), variable: "many"}
    ended = subprocess.run(
        [sys.executable, "-m", service], env={**os.environ, **told}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    assert variable in ended.stderr
    assert "Traceback" not in ended.stderr


SECRETS = sorted(str(field.validation_alias) for field in Settings.model_fields.values() if is_secret(field))


def test_every_secret_is_known_as_one() -> None:
    assert SECRETS == ["DATABASE_PASSWORD", "DATABASE_URL", "RUNYARD_ADMIN_KEY", "RUNYARD_SERVICE_TOKEN"]
    told = (Path(__file__).parent.parent.parent / "docs" / "configuration.md").read_text()
    assert all(f"`{name}`" in told for name in SECRETS)


@pytest.mark.parametrize("variable", SECRETS)
def test_a_secret_may_stand_in_a_file(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://x")
    monkeypatch.delenv(variable, raising=False)
    (tmp_path / "secret").write_text(" s3cret\r\n\n")
    monkeypatch.setenv(f"{variable}_FILE", str(tmp_path / "secret"))
    read = Settings()  # pyright: ignore[reportCallIssue]
    [name] = [name for name, field in Settings.model_fields.items() if field.validation_alias == variable]
    assert getattr(read, name).get_secret_value() == " s3cret"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_secret_file_that_cannot_be_read_is_named(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://x")
    monkeypatch.delenv("RUNYARD_ADMIN_KEY", raising=False)
    monkeypatch.setenv("RUNYARD_ADMIN_KEY_FILE", str(tmp_path / "secret"))
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ValueError, match="RUNYARD_ADMIN_KEY_FILE cannot be read"):
        Settings()  # pyright: ignore[reportCallIssue]


def test_a_secret_told_twice_is_refused_without_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("never-shown")
    monkeypatch.setenv("DATABASE_URL", "postgresql://never-shown")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "secret"))
    with pytest.raises(ValueError, match=r"^DATABASE_URL and DATABASE_URL_FILE are both set$"):
        Settings()  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("url", "dsn"),
    [
        ("postgresql://u@h/d", "postgresql://u@h/d?password=a%2Fb%26c%3D"),
        ("postgresql://u@/d?host=/s", "postgresql://u@/d?host=/s&password=a%2Fb%26c%3D"),
    ],
)
def test_a_password_of_its_own_completes_the_url(url: str, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert Settings().dsn() == url  # pyright: ignore[reportCallIssue]
    monkeypatch.setenv("DATABASE_PASSWORD", "a/b&c=")
    assert Settings().dsn() == dsn  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    "variable", ["RUNYARD_SERVICE_TOKEN", "RUNYARD_ADMIN_KEY", "RUNYARD_SERVICE_TOKEN_FILE", "RUNYARD_ADMIN_KEY_FILE"]
)
def test_a_local_stack_makes_its_own_secrets_whatever_the_shell_says(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "of the shell")
    monkeypatch.setenv("RUNYARD_LOG_LEVEL", "debug")
    given = handed_down(["EXECUTOR_"])
    assert variable not in given
    assert given["RUNYARD_LOG_LEVEL"] == "debug"


@pytest.mark.parametrize(
    "bad", ["http://b:809o", "http://b:0", "http://b:70000", "http://[::1", "b:8090", "http://:8090", "http://b?c"]
)
def test_a_list_of_places_with_one_that_is_none_is_refused_by_its_name(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECUTOR_MANAGER_EXECUTORS", f"http://a:8090,{bad}")
    with pytest.raises(ValidationError, match=r"EXECUTOR_MANAGER_EXECUTORS\.1\n.*not a base URL") as refusal:
        ManagerSettings()
    assert bad not in str(refusal.value)
