"""``python -m tests.chaos.skewed SECONDS MODULE``: a service whose clock is wrong by so many seconds, fast or slow."""

from __future__ import annotations

import runpy
import sys
import time
from datetime import datetime, timedelta

from shared import clock


def main() -> None:
    seconds, module = float(sys.argv[1]), sys.argv[2]
    true_time, true_now = time.time, clock.utc_now

    def skewed_now() -> datetime:
        return true_now() + timedelta(seconds=seconds)

    time.time = lambda: true_time() + seconds
    clock.utc_now = skewed_now  # before anything that takes it from there is imported
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
