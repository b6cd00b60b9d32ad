"""What a person sends into a run while it works, and fetches from what it left."""

from __future__ import annotations

import json
import os
import sys
from contextlib import aclosing
from pathlib import Path

from runyard.cli.exits import Exit, complain
from runyard.cli.server import open_server
from runyard.cli.show import clean


async def say_to(url: str | None, key: str | None, run_id: str, text: str, as_json: bool) -> None:
    async with open_server(url, key) as runyard:
        answer = await runyard.say(run_id, text)
    print(json.dumps(answer) if as_json else f"{run_id} has the message")


async def list_files(url: str | None, key: str | None, run_id: str, as_json: bool) -> None:
    async with open_server(url, key) as runyard:
        page = await runyard.files(run_id)
        found = page["items"]
        while page.get("nextCursor") is not None:
            page = await runyard.files(run_id, cursor=page["nextCursor"])
            found += page["items"]
    for each in found:
        print(json.dumps(each) if as_json else f"{each['bytes']:>12}  {clean(str(each['path']))}")


async def print_file(url: str | None, key: str | None, run_id: str, path: str) -> None:
    async with open_server(url, key) as runyard, aclosing(runyard.download(run_id, path)) as blocks:
        async for block in blocks:
            sys.stdout.buffer.write(block)
    sys.stdout.flush()


async def fetch_bundle(url: str | None, key: str | None, run_id: str, target: Path) -> Exit:
    """Whole or not at all: it gets its name when its last byte is there."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        async with open_server(url, key) as runyard, aclosing(runyard.download(run_id)) as blocks:
            with draft.open("wb") as file:
                async for block in blocks:
                    file.write(block)
        draft.replace(target)
    except OSError as error:
        complain(f"{target}: {error.strerror}")
        return Exit.ERROR
    finally:
        draft.unlink(missing_ok=True)
    print(target)
    return Exit.SUCCESS
