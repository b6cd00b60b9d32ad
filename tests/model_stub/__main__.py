"""``python -m tests.model_stub --port 0``: prints ``listening PORT`` and serves until it is asked to stop."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from tests.model_stub.server import serving


async def _serve(port: int) -> None:
    stopped = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stopped.set)
    async with serving(port) as stub:
        sys.stdout.write(f"listening {stub.port}\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_serve(parser.parse_args().port))
