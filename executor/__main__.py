"""``python -m executor``: the guard, which starts the executor proper (``executor.server``) as its child."""

from __future__ import annotations

import sys

from executor.guard import main

if __name__ == "__main__":
    sys.exit(main())
