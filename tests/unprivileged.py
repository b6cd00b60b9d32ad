"""Programs as a plain user runs them, and what one such program may see of another: also where the tests run as root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

# Root's rights are its capabilities: without them it is a user like any other. Whoever has more of them than the reader cannot
# be read anyway, so both must be started like this.
_WITHOUT_RIGHTS = ("setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--securebits=+noroot", "--")
AS_A_PLAIN_PROGRAM: Sequence[str] = _WITHOUT_RIGHTS if os.geteuid() == 0 else ()


def environment_of(pid: int) -> bytes | None:
    """What a plain program reads of what another one of its user was started with; None where that is refused."""
    read = subprocess.run(
        (*AS_A_PLAIN_PROGRAM, "cat", f"/proc/{pid}/environ"),
        capture_output=True, timeout=20, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert read.returncode == 0 or b"Permission denied" in read.stderr, read.stderr
    return read.stdout if read.returncode == 0 else None
