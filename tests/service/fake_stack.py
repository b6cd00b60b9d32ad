"""``runyard up`` with ``fake_service`` in place of the services: ``fake_stack.py STATE_DIR [deaf|broken] [DATABASE_URL]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from runyard.local_stack.ports import Ports
from runyard.local_stack.services import Service, service_table
from runyard.local_stack.stack import Secrets, StackError, StackOptions
from runyard.local_stack.supervisor import Supervisor, say_on_stderr

FAKE = str(Path(__file__).with_name("fake_service.py"))


def fakes(state_dir: Path, ports: Ports, secrets: Secrets, database_url: str) -> Sequence[Service]:
    """The real table with other commands, so that names, ports, environment and order are the product's own."""
    return [replace(each, command=_command(each)) for each in service_table(state_dir, ports, secrets, database_url)]


def _command(service: Service) -> tuple[str, ...]:
    command = (sys.executable, FAKE, service.url.rpartition(":")[2])
    if service.pid_file is not None:
        return (*command, "--guarded", str(service.pid_file))
    if "broken" in sys.argv:
        return (sys.executable, "-c", "raise SystemExit('no such module: nothing here works')")
    return (*command, "--deaf") if "deaf" in sys.argv else command


def main() -> int:
    state = Path(sys.argv[1])
    url = sys.argv[-1] if "://" in sys.argv[-1] else None
    options = StackOptions(state, port=0, executors=2, control_planes=2, ready_file=state / "asked.json", database_url=url)
    try:
        Supervisor(options, say_on_stderr, lambda _document: print("up", flush=True), fakes).run()  # noqa: T201
    except StackError as error:
        say_on_stderr(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
