"""Results as Markdown and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench.kit.turns import Bench, Results, Verdict

LIBRARIES = ("asyncpg", "uvicorn", "uvloop", "httptools", "starlette", "httpx", "httpx-sse", "procrastinate", "pgqueuer")


def machine() -> dict[str, Any]:
    """What the figures were taken on, as far as it matters for reading them."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "processor": model[0].partition(":")[2].strip() if model else platform.processor(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": [round(each, 2) for each in os.getloadavg()],
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def number(value: float) -> str:
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def arms_table(bench: Bench, results: Results) -> str:
    """Medians; in brackets the least and the most of the first column."""
    lines = [f"### {bench.title} (`{bench.name}`)", "", "| arm | " + " | ".join(bench.columns) + " |"]
    lines.append("|---" * (len(bench.columns) + 1) + "|")
    for arm, rounds in results.rounds.items():
        cells: list[str] = []
        for index, column in enumerate(bench.columns):
            if column not in rounds[0]:
                cells.append("–")
                continue
            values = results.values(arm, column)
            spread = f" ({number(min(values))}–{number(max(values))})" if index == 0 and len(values) > 1 else ""
            cells.append(number(results.median(arm, column)) + spread)
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *bench.notes])


def verdict_line(verdict: Verdict) -> str:
    target = verdict.target
    bound = f"{'≥' if target.at_least else '≤'} {number(target.limit)} {target.unit}"
    met = "met" if verdict.is_met else "**missed**"
    required = " (required)" if target.required else ""
    return f"| {target.name} | {target.says} | {bound}{required} | {number(verdict.value)} {target.unit} | {met} |"


def targets_table(verdicts: Sequence[Verdict]) -> str:
    head = "| | target | bound | figure | |\n|---|---|---|---|---|"
    return "\n".join([head, *map(verdict_line, verdicts)])


def as_json(done: Sequence[tuple[Bench, Results, Sequence[Verdict]]], quick: bool) -> str:
    benches = [
        {
            "name": bench.name,
            "title": bench.title,
            "arms": {arm: list(map(dict, rounds)) for arm, rounds in results.rounds.items()},
            "targets": [
                {
                    "name": each.target.name, "says": each.target.says, "limit": each.target.limit,
                    "atLeast": each.target.at_least, "required": each.target.required, "value": each.value, "met": each.is_met,
                }
                for each in verdicts
            ],
        }
        for bench, results, verdicts in done
    ]  # fmt: skip
    return json.dumps({"machine": machine(), "quick": quick, "benches": benches}, indent=2, ensure_ascii=False)
