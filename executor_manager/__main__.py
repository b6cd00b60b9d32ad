"""``python -m executor_manager``: serve until told to stop."""

from __future__ import annotations

from executor_manager.app import build_app
from executor_manager.settings import Settings
from shared.logs import configure_logs
from shared.server import serve


def main() -> None:
    settings = Settings()
    configure_logs("executor-manager", settings.log_level)
    serve(build_app(settings), settings.host, settings.port)


if __name__ == "__main__":
    main()
