"""What a service says when it is told nonsense: the variable's name and the reason, and no value of any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from control_plane.settings import Settings


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
