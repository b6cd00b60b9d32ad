"""The executor proper, started by its guard: settings → app → serve."""

from __future__ import annotations

import os
import signal
import sys

from executor.app import build_app
from executor.inherited_limits import take_limits
from executor.processes import procfs
from executor.settings import ExecutorSettings
from executor.state_dir import GUARD_PID, INSTANCE, MARK
from shared.logs import configure_logs
from shared.private_process import become_private
from shared.server import serve
from shared.settings import refuse_open_door


def main() -> int:
    try:
        settings = ExecutorSettings()
        refuse_open_door(settings.auth, settings.host)
    except ValueError as error:
        sys.stderr.write(f"executor: {error}\n")
        return 2
    configure_logs("executor", settings.log_level)
    take_limits(settings.file_limit_bytes)
    if settings.guard_pid is not None:
        # a dead guard watches no leash: the executor then ends its attempts itself, in order and at once
        procfs.signal_when_parent_dies(signal.SIGINT, settings.guard_pid)
    procfs.become_subreaper()
    try:
        app = build_app(settings)
    except ValueError as error:
        sys.stderr.write(f"executor: {error}\n")
        return 2
    for name in (MARK, INSTANCE, GUARD_PID):
        os.environ.pop(name, None)
    become_private()  # last: /proc/self is root's from here on
    serve(lambda: app, settings.host, settings.port, app.asked_to_end)
    return 0


if __name__ == "__main__":
    sys.exit(main())
