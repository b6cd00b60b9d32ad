"""What a stress run says afterwards: numbers as JSON, the same for people as Markdown, latencies as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from scripts.stress.verdicts import SUGGESTIONS, FailureClass, Outcome

LATENCIES = {
    "accepted": "start → accepted",
    "firstEvent": "start → first event",
    "firstText": "start → first text",
    "total": "start → end",
}
QUANTILES = (0.5, 0.9, 0.99)
TOP = 5
Json = dict[str, Any]


def summarize(results: Sequence[Json], threshold: float, seconds: float) -> Json:
    """``passed``: enough of them succeeded, and every failure has a class."""
    outcomes = Counter(str(each["outcome"]) for each in results)
    classes = Counter(str(each["failureClass"]) for each in results)
    rate = outcomes[Outcome.SUCCEEDED] / len(results) if results else 0.0
    unclassified = classes[FailureClass.UNCLASSIFIED]
    return {
        "runs": len(results), "succeeded": outcomes[Outcome.SUCCEEDED], "successRate": round(rate, 4), "threshold": threshold,
        "passed": rate >= threshold and not unclassified, "unclassified": unclassified, "seconds": round(seconds, 2),
        "outcomeCounts": dict(outcomes.most_common()), "failureClassCounts": dict(classes.most_common()),
        "topFailures": _top_failures(results),
        "reconnects": sum(each["reconnects"] for each in results),
        "resumedRuns": sum(each["reconnects"] > 0 and each["outcome"] == Outcome.SUCCEEDED for each in results),
        "events": sum(each["events"] for each in results),
        "latencyMs": {name: quantiles(latencies(results, name)) for name in LATENCIES},
    }  # fmt: skip


def latencies(results: Sequence[Json], name: str) -> list[int]:
    """Of the runs that got that far, shortest first."""
    return sorted(each["latencyMs"][name] for each in results if each["latencyMs"][name] is not None)


def quantiles(values: Sequence[int]) -> Json:
    """Of sorted values, each one that was measured; None where nothing was."""
    at = {f"p{round(share * 100)}": values[max(ceil(share * len(values)) - 1, 0)] if values else None for share in QUANTILES}
    return {"count": len(values), **at, "max": values[-1] if values else None}


def _top_failures(results: Sequence[Json]) -> list[Json]:
    failures = [each for each in results if each["failureClass"] != FailureClass.NONE]
    kinds = Counter((str(each["failureClass"]), str(each["errorCode"] or each["outcome"])) for each in failures)
    return [
        {
            "failureClass": failure, "code": code, "count": count, "suggestion": SUGGESTIONS[FailureClass(failure)],
            "examples": [each["runId"] for each in failures if (each["errorCode"] or each["outcome"]) == code][:3],
        }
        for (failure, code), count in kinds.most_common(TOP)
    ]  # fmt: skip


def markdown(report: Mapping[str, Any]) -> str:
    summary, config = report["summary"], report["config"]
    wanted = f"{summary['successRate']:.1%}, wanted {summary['threshold']:.1%}"
    lines = [
        f"# Stress: {'passed' if summary['passed'] else 'failed'}",
        "",
        f"{summary['succeeded']} of {summary['runs']} runs succeeded ({wanted}), {config['concurrency']} at once, "
        f"in {summary['seconds']} s; unclassified failures: {summary['unclassified']}.",
        f"Streams that broke and were resumed: {summary['reconnects']} times, {summary['resumedRuns']} of these runs succeeded.",
        "",
        f"Against {config['baseUrl']} with {config['client']}, {report['generatedAt']}.",
        "",
        *_table(("failure class", "runs"), summary["failureClassCounts"].items()),
        *_table(("outcome", "runs"), summary["outcomeCounts"].items()),
        *_table(
            ("latency, ms", "measured", "p50", "p90", "p99", "max"),
            [(LATENCIES[name], *values.values()) for name, values in summary["latencyMs"].items()],
        ),
    ]
    if report.get("plot"):
        lines += [f"![latencies]({report['plot']})", ""]
    if summary["topFailures"]:
        lines += ["## What to do", ""]
        for each in summary["topFailures"]:
            lines.append(f"- {each['count']} × `{each['failureClass']}` ({each['code']}): {each['suggestion']}")
        lines += ["", "What each saw is under `failures/`: the raw stream, the result, what curl complained about.", ""]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Any) -> list[str]:
    cells = [head, ["---"] * len(head), *([("–" if cell is None else str(cell)) for cell in row] for row in rows)]
    return [*(f"| {' | '.join(row)} |" for row in cells), ""]


def plot(results: Sequence[Json], file: Path) -> bool:
    """The share of runs that had got so far by then, one line per latency. False where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120)
    for name, label in LATENCIES.items():
        if values := latencies(results, name):
            axes.step(values, [(index + 1) / len(values) for index in range(len(values))], where="post", label=label)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds")
    axes.set_ylabel("share of runs")
    axes.set_ylim(0, 1.02)
    axes.grid(visible=True, which="both", alpha=0.3)
    if axes.has_data():
        axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)
    return True
