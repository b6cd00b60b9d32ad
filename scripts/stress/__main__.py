"""Starts many runs at once against a live Runyard, follows each with an SSE client of its own (curl -N where there is one), and
reports how each ended, why, and what to do: report.json, report.md, latencies.png, and for each failure failures/<run>/ with
sse.raw.txt, result.json and curl.stderr.txt.

exit status:
  0   enough runs succeeded, and every failure has a class
  1   they did not
  2   nobody answers at --base-url, or not to this key: nothing was started
  64  the arguments are wrong
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from runyard.api import Runyard, RunyardApiError, RunyardUnreachableError
from scripts.arguments import Addresses, Parser, add_stack_arguments, addresses
from scripts.stress.one_run import Target, live
from scripts.stress.report import markdown, plot, summarize
from scripts.stress.verdicts import Outcome

PASSED, FAILED, UNREACHABLE = 0, 1, 2
PROMPT = "Say hello in one short sentence. Use no tools."
Json = dict[str, Any]


async def stress(target: Target, requests: Sequence[Mapping[str, Any]], concurrency: int, out: Path) -> list[Json]:
    """The results, in the order of the requests. Of a failure all that was seen is kept, of a success nothing."""
    results: dict[int, Json] = {}
    numbered = enumerate(requests, start=1)

    async def caller() -> None:
        for number, request in numbered:
            folder = out / ".streams" / str(number)
            folder.mkdir(parents=True)
            results[number] = result = await live(target, number, request, folder)
            _keep(out, folder, result)

    async with asyncio.TaskGroup() as callers:
        for _ in range(concurrency):
            callers.create_task(caller())
    shutil.rmtree(out / ".streams", ignore_errors=True)
    return [results[number] for number in sorted(results)]


def _keep(out: Path, folder: Path, result: Json) -> None:
    if result["outcome"] == Outcome.SUCCEEDED:
        shutil.rmtree(folder)
        return
    raw = folder / "sse.raw.txt"
    if not raw.exists() or not raw.stat().st_size:  # a comment, as SSE has them: there was no stream
        raw.write_text(f": no stream: {result['outcome']}, {result['errorCode']}\n")
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    kept = out / "failures" / (result["runId"] or f"start-{result['run']}")
    kept.parent.mkdir(exist_ok=True)
    folder.rename(kept)


def requests_of(arguments: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    """One for each run: all the same, or those of ``--mix`` in turn. Raises ``ValueError`` for a mix that is none."""
    options: Json = json.loads(arguments.provider_options)
    asked: Json = {"provider": arguments.provider, "model": arguments.model, "engineMode": arguments.engine_mode}
    asked |= {"prompt": arguments.prompt, "providerOptions": options or None}
    mix = _mix(arguments.mix.read_text()) if arguments.mix else [asked]
    for number in range(arguments.runs):
        yield asked | mix[number % len(mix)] | {"metadata": {"stress": number + 1}}


def _mix(text: str) -> list[Json]:
    mix: Any = json.loads(text)
    if not isinstance(mix, list) or not mix or not all(isinstance(each, dict) for each in cast(list[Any], mix)):
        raise ValueError("--mix: give a JSON list of start requests")
    return cast(list[Json], mix)


async def examine(at: Addresses, arguments: argparse.Namespace, requests: Sequence[Mapping[str, Any]]) -> Json | None:
    """The whole report; None when nobody answers."""
    assert at.api_url is not None
    async with Runyard(at.api_url, at.api_key) as runyard:
        try:
            preflight = await runyard.readiness()
            await runyard.list(limit=1)
        except (RunyardApiError, RunyardUnreachableError) as error:
            print(f"stress: {at.api_url}: {error}", file=sys.stderr)
            return None
        target = Target(at.api_url, at.api_key, arguments.timeout, runyard)
        began = time.monotonic()
        results = await stress(target, requests, min(arguments.concurrency, len(requests)), arguments.out)
        seconds = time.monotonic() - began
    config = {
        "baseUrl": at.api_url, "provider": arguments.provider, "model": arguments.model, "runs": arguments.runs,
        "concurrency": arguments.concurrency, "timeoutSeconds": arguments.timeout, "threshold": arguments.threshold,
        "mix": str(arguments.mix) if arguments.mix else None, "client": "curl -N" if shutil.which("curl") else "httpx",
    }  # fmt: skip
    return {
        "generatedAt": datetime.now(UTC).isoformat().replace("+00:00", "Z"), "config": config, "preflight": preflight,
        "summary": summarize(results, arguments.threshold, seconds), "plot": None, "runs": results,
    }  # fmt: skip


def _write(report: Json, out: Path) -> None:
    picture = "latencies.png"
    report["plot"] = picture if plot(report["runs"], out / picture) else None
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (out / "report.md").write_text(markdown(report))


def _arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_stack_arguments(parser)
    parser.add_argument("--provider", default="codex-app-server", help="default: %(default)s")
    parser.add_argument("--model")
    parser.add_argument("--engine-mode", default="full", help="default: %(default)s, which asks nobody")
    parser.add_argument("--provider-options", default="{}", metavar="JSON")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--mix", type=Path, help="JSON list of start requests, dealt in turn, over what the options say")
    parser.add_argument("--runs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--concurrency", type=int, default=1, help="runs at once; default: %(default)s")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds a caller waits for one run; default: %(default)s")
    parser.add_argument("--threshold", type=float, default=0.8, help="share of runs that must succeed; default: %(default)s")
    parser.add_argument("--out", type=Path, help="a new folder; default: .runyard/stress/<time>")
    parser.add_argument("--json", action="store_true", help="print report.json without its runs")
    arguments = parser.parse_args()
    if arguments.runs < 1 or arguments.concurrency < 1 or arguments.timeout <= 0 or not 0 <= arguments.threshold <= 1:
        parser.error("runs and concurrency start at 1, timeout above 0, threshold is from 0 to 1")
    arguments.out = arguments.out or Path(".runyard/stress") / datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    arguments.at = addresses(arguments)
    if arguments.at.api_url is None:
        parser.error("no Runyard is up here, and neither --base-url nor RUNYARD_URL names one")
    try:
        arguments.requests = list(requests_of(arguments))
        arguments.out.mkdir(parents=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return arguments


def main() -> int:
    arguments = _arguments()
    report = asyncio.run(examine(arguments.at, arguments, arguments.requests))
    if report is None:
        return UNREACHABLE
    _write(report, arguments.out)
    if arguments.json:
        print(json.dumps({name: value for name, value in report.items() if name != "runs"}, indent=2))
    else:
        print(markdown(report))
        print(f"The whole report is in {arguments.out}")
    return PASSED if report["summary"]["passed"] else FAILED


if __name__ == "__main__":
    sys.exit(main())
