"""``python -m tests.e2e.manager_with_names FILE``: the executor manager with a name server that is a file.

``FILE`` holds ``{"name": ["address", …]}`` and is read anew at each question, so that a test changes the answers while it runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from executor_manager.app import build_app
from executor_manager.settings import Settings
from shared.server import Stopping, serve


def main() -> None:
    names = Path(sys.argv[1])

    async def resolve(host: str, _port: int) -> list[str]:
        return json.loads(names.read_text())[host]  # noqa: ASYNC240  a small file

    settings, stopping = Settings(), Stopping()
    app = build_app(settings, stopping=stopping, resolve=resolve)
    serve(lambda: app, settings.host, settings.port, on_signal=stopping.begin)


if __name__ == "__main__":
    main()
