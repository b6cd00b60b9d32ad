"""Which ports a local stack uses. All of them stand before anything starts, so that restarts keep them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from runyard.local_stack.stack import StackError, StackOptions

HOST = "127.0.0.1"
CONTROL_PLANE_PORT = 3000
MANAGER_PORT = 3010
EXECUTOR_PORT = 8090


@dataclass(frozen=True, slots=True)
class Ports:
    control_planes: tuple[int, ...]
    managers: tuple[int, ...]
    executors: tuple[int, ...]


def choose_ports(options: StackOptions) -> Ports:
    """Raises ``StackError`` naming the first port that somebody else has."""
    counts = (options.control_planes, options.managers, options.executors)
    first = CONTROL_PLANE_PORT if options.port is None else options.port
    bases = (0, 0, 0) if options.port == 0 else (first, MANAGER_PORT, EXECUTOR_PORT)
    with ExitStack() as held:  # all at once, so that no port is given twice
        chosen = [tuple(_bound(held, base, count)) for base, count in zip(bases, counts, strict=True)]
    return Ports(*chosen)


def _bound(held: ExitStack, base: int, count: int) -> Iterator[int]:
    for number in range(count):
        listener = held.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = base + number if base else 0
        try:
            listener.bind((HOST, port))
            listener.listen()  # bound only, the same port could be had again
        except OSError as error:
            raise StackError(f"port {port} cannot be used ({error.strerror}); choose free ones with --port 0") from None
        yield listener.getsockname()[1]


def base_url(port: int) -> str:
    return f"http://{HOST}:{port}"
