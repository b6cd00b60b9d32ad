"""``python -m control_plane``: one replica."""

from __future__ import annotations

import sys

from pydantic import ValidationError

from control_plane.app import build_app
from control_plane.settings import Settings
from shared.logs import configure_logs
from shared.private_process import become_private
from shared.server import Stopping, serve


def main() -> None:
    try:
        settings = Settings()  # pyright: ignore[reportCallIssue] - the environment fills it
        configure_logs("control-plane", settings.log_level)
        settings.refuse_what_does_not_fit()
    except (ValidationError, ValueError) as error:
        sys.exit(f"control-plane: {error}")
    stopping = Stopping()
    become_private()
    serve(lambda: build_app(settings, stopping=stopping), settings.host, settings.port, on_signal=stopping.begin)


if __name__ == "__main__":
    main()
