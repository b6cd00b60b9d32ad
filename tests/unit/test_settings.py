"""What a service says when it is told nonsense: the variable's name and the reason, and no value of any."""

from __future__ import annotations

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
