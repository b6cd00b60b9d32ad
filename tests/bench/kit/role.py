"""``python -m tests.bench.kit.role MODULE FUNCTION ARGUMENTS``: one process of a benchmark; ARGUMENTS is a JSON object.

It ends with its parent.
"""

from __future__ import annotations

import importlib
import json
import logging
import signal
import sys

from runyard.local_stack.death_signal import die_with_parent


def main() -> None:
    die_with_parent(signal.SIGKILL)
    logging.disable(logging.CRITICAL)
    module, function, told = sys.argv[1:]
    getattr(importlib.import_module(module), function)(**json.loads(told))


if __name__ == "__main__":
    main()
