"""The figures of a crowd, and what of them breaks a promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.soak.judge import Sample, peaks, percentiles


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds, one per event: from the executor's stamp to other processes knowing that it is stored, to a client's hand;
    and between a run's events, which are said one a second."""

    stored: Sequence[float]
    delivered: Sequence[float]
    gaps: Sequence[float]


@dataclass(frozen=True, slots=True)
class Figures:
    """``cpu``: per cent of one processor while all lived. ``engines``: their count and memory (MiB, added up) at that time."""

    samples: Sequence[Sample]
    most_alive: int
    latencies: Latencies
    probes: Mapping[str, Sequence[float]]
    starts: Sequence[float]
    cpu: Mapping[str, float]
    engines: Mapping[str, float]

    def faults(self, runs: int) -> list[str]:
        return [] if self.most_alive >= runs else [f"at most {self.most_alive} runs lived at once, not {runs}"]

    def told(self) -> str:
        """Markdown."""
        count = self.engines.get("count", 0) or 1
        lines = [
            f"at most {self.most_alive} runs lived at once; an engine: {self.engines.get('rss', 0) / count:.1f} MiB RSS, "
            f"{self.engines.get('pss', 0) / count:.1f} PSS, {self.engines.get('uss', 0) / count:.1f} USS",
            "",
            "| ms | p50 / p95 / p99 / worst |",
            "| --- | --- |",
            f"| a start is answered | {percentiles(self.starts)} |",
            f"| said → stored and told | {percentiles(self.latencies.stored)} |",
            f"| said → in a client's hand | {percentiles(self.latencies.delivered)} |",
            f"| between two events of a run | {percentiles(self.latencies.gaps)} |",
        ]
        lines += [f"| {name} says that it lives | {percentiles(took)} |" for name, took in self.probes.items()]
        lines += [
            "",
            "| service | CPU of one core | RSS peak, MiB | USS | descriptors | threads |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        most = peaks(self.samples)
        for name, share in self.cpu.items():
            use = most.get(name)
            memory = f"{use.rss:.0f} | {use.uss:.0f} | {use.descriptors} | {use.threads}" if use is not None else "– | – | – | –"
            lines.append(f"| {name} | {share:.0f} % | {memory} |")
        return "\n".join(lines)
