"""Asks one URL of this container whether the service is well: exit status 0 for a 2xx answer, else 1. For health checks."""

from __future__ import annotations

import http.client
import sys
from urllib.parse import urlsplit

SECONDS = 4


def main() -> int:
    url = urlsplit(sys.argv[1])
    connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port, timeout=SECONDS)
    try:
        connection.request("GET", url.path)
        answer = connection.getresponse()
        sys.stdout.write(answer.read(1000).decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(str(error))
        return 1
    return 0 if 200 <= answer.status < 300 else 1


if __name__ == "__main__":
    sys.exit(main())
