"""A service that does nothing but answer its probes. Run by ``fake_stack``; not a test.

``fake_service.py PORT [--deaf] [--guarded PID_FILE]``: deaf ignores SIGTERM; guarded starts the real one as a child, as an
executor's guard does.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class Probes(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path in ("/livez", "/readyz", "/environment")
        body = json.dumps(dict(os.environ) if self.path == "/environment" else {"ok": found}).encode()
        self.send_response(200 if found else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _told_to_end(number: int) -> int:
    """One line in the service's log; the clock is the same for all of them."""
    os.write(1, f"told to end at {time.monotonic_ns()} by {signal.Signals(number).name}\n".encode())
    return 0


def main() -> None:
    port = int(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(_told_to_end(number)))
    if "--deaf" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--guarded" in sys.argv:
        child = subprocess.Popen([sys.executable, __file__, str(port)])
        Path(sys.argv[-1]).parent.mkdir(exist_ok=True)
        Path(sys.argv[-1]).write_text(str(child.pid))
        for wish in (signal.SIGTERM, signal.SIGINT):
            signal.signal(wish, lambda number, _: (_told_to_end(number), child.terminate()))
        sys.exit(child.wait())
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Probes).serve_forever()


if __name__ == "__main__":
    main()
