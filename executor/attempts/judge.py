"""A process that judges one answer: ``[schema, answer]`` on stdin, what does not fit, or null, on stdout.

It may be given anything, takes no more memory and time than its limits say, and never does anything else.
"""

from __future__ import annotations

import resource
import sys

import msgspec

from shared.schemas import Schema

MAX_MEMORY_BYTES = 1024 * 1024 * 1024
MAX_CPU_SECONDS = 5  # then SIGXCPU; a second later it would be killed, and nobody could say why
MAX_CHARACTERS = 128 * 1024  # of what does not fit: whoever takes secrets out of that must see them whole


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    schema, value = msgspec.json.decode(sys.stdin.buffer.read())
    wrong = Schema(schema).misfit(value)
    sys.stdout.buffer.write(msgspec.json.encode(wrong and wrong[:MAX_CHARACTERS]))


if __name__ == "__main__":
    main()
