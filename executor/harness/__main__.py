"""``python -m executor.harness``."""

from __future__ import annotations

import sys

from executor.harness.main import main

if __name__ == "__main__":
    sys.exit(main())
