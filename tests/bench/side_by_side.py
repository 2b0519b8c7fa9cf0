"""Timing two things in turns, so that whatever else the machine does falls on both."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.bench import processor


@dataclass(frozen=True)
class Comparison:
    """Medians in seconds, and the ratio of measured to baseline with what it should be at most. `..._cpu` are seconds
    of processors, on all hosts together, where they are counted."""

    name: str
    measured: str
    baseline: str
    target: float
    measured_seconds: list[float]
    baseline_seconds: list[float]
    measured_cpu: list[float] = field(default_factory=list)
    baseline_cpu: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.measured_seconds) / statistics.median(self.baseline_seconds)

    def as_json(self) -> dict[str, object]:
        cpu = {}
        if self.measured_cpu and self.baseline_cpu:
            ours, theirs = statistics.median(self.measured_cpu), statistics.median(self.baseline_cpu)
            cpu = {
                "measured_cpu_median_s": round(ours, 4),
                "baseline_cpu_median_s": round(theirs, 4),
                "cpu_ratio": round(ours / theirs, 3),
            }
        return {
            "measured": self.measured,
            "baseline": self.baseline,
            "measured_median_s": round(statistics.median(self.measured_seconds), 4),
            "baseline_median_s": round(statistics.median(self.baseline_seconds), 4),
            "runs": len(self.measured_seconds),
            "ratio": round(self.ratio, 3),
            "target": self.target,
            "met": self.ratio <= self.target,
            **cpu,
        }


@dataclass(frozen=True)
class Measured:
    """What is to be held against a baseline; `between` puts things back before it."""

    name: str
    target: float
    label: str
    action: Callable[[], None]
    between: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Figure:
    """A figure that has nothing beside it, in seconds unless `unit` says otherwise; `target` is what its median should
    be at most, if anything."""

    name: str
    measured: str
    values: list[float]
    target: float | None = None
    unit: str = "s"

    def as_json(self) -> dict[str, object]:
        median = statistics.median(self.values)
        said = {
            "measured": self.measured,
            f"median_{self.unit}": round(median, 4),
            f"worst_{self.unit}": round(max(self.values), 4),
            "runs": len(self.values),
        }
        return said if self.target is None else {**said, "target": self.target, "met": median <= self.target}


def compare(
    name: str,
    target: float,
    measured: tuple[str, Callable[[], None]],
    baseline: tuple[str, Callable[[], None]],
    runs: int,
    between: Callable[[], None] = lambda: None,
) -> Comparison:
    """Run both in turns, once each to warm up and then `runs` times; `between` puts things back before each."""
    (result,) = compare_all([Measured(name, target, *measured, between)], baseline, runs, between)
    return result


def compare_all(
    all_measured: Sequence[Measured],
    baseline: tuple[str, Callable[[], None]],
    runs: int,
    between: Callable[[], None] = lambda: None,
) -> list[Comparison]:
    """The same of several, in turns with one baseline; `between` puts things back before that."""
    theirs = _Times()
    ours = {one.name: _Times() for one in all_measured}
    for number in range(runs + 1):
        between()
        theirs.time(baseline[1], count=number > 0)
        for one in all_measured:
            one.between()
            ours[one.name].time(one.action, count=number > 0)
    results = [
        Comparison(
            one.name,
            one.label,
            baseline[0],
            one.target,
            ours[one.name].seconds,
            theirs.seconds,
            ours[one.name].cpu,
            theirs.cpu,
        )
        for one in all_measured
    ]
    for result in results:
        print(f"{result.name}: {result.ratio:.2f} (at most {result.target:.2f})", file=sys.stderr, flush=True)
    return results


class _Times:
    """What the runs of one thing took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def time(self, action: Callable[[], None], *, count: bool) -> None:
        """Do it once more."""
        used, start = processor.seconds(), time.perf_counter()
        action()
        took, used_after = time.perf_counter() - start, processor.seconds()
        if not count:
            return
        self.seconds.append(took)
        if used is not None and used_after is not None:
            self.cpu.append(used_after - used)
