#!/bin/sh
# Runs scripts.full_conversation with the environment of this checkout; --help tells the rest.
root=$(cd "$(dirname "$0")/.." && pwd) && python="$root/.venv/bin/python"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$([ -x "$python" ] && echo "$python" || echo python3)" -m scripts.full_conversation "$@"
