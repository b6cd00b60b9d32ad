"""``python -m tests.chaos.skewed SECONDS MODULE``: a service whose clock is wrong by so many seconds, fast or slow.

An executor's guard is handed on to its executor, which is as wrong as it is.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
import time
from datetime import datetime, timedelta
from typing import Any

from shared import clock

OURS = "tests.chaos.skewed"
EXECUTOR = "executor.server"


def main() -> None:
    seconds, module = float(sys.argv[1]), sys.argv[2]
    true_time, true_now = time.time, clock.utc_now

    def skewed_now() -> datetime:
        return true_now() + timedelta(seconds=seconds)

    time.time = lambda: true_time() + seconds
    clock.utc_now = skewed_now  # before anything that takes it from there is imported
    _hand_on(sys.argv[1])
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _hand_on(seconds: str) -> None:
    """What is started as the executor proper gets the same clock."""
    start = subprocess.Popen.__init__

    def skewed_start(self: Any, args: Any, *more: Any, **named: Any) -> None:
        if isinstance(args, list) and args[-2:] == ["-m", EXECUTOR]:
            args = [*args[:-1], OURS, seconds, EXECUTOR]
        start(self, args, *more, **named)

    subprocess.Popen.__init__ = skewed_start


if __name__ == "__main__":
    main()
