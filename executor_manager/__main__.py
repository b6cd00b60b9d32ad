"""``python -m executor_manager``: one manager. Any number may run beside each other."""

from __future__ import annotations

import sys

from executor_manager.app import build_app
from executor_manager.settings import Settings
from shared.logs import configure_logs
from shared.private_process import become_private
from shared.server import Stopping, serve


def main() -> None:
    try:
        settings = Settings()
        configure_logs("executor-manager", settings.log_level)
        stopping = Stopping()
        app = build_app(settings, stopping=stopping)
    except ValueError as error:
        sys.exit(f"executor-manager: {error}")
    become_private()
    serve(lambda: app, settings.host, settings.port, on_signal=stopping.begin)


if __name__ == "__main__":
    main()
