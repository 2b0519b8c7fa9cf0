"""Timing two things in turns, so that whatever else the machine does falls on both."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Medians in seconds, and the ratio of measured to baseline with what it should be at most."""

    name: str
    measured: str
    baseline: str
    target: float
    measured_seconds: list[float]
    baseline_seconds: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.measured_seconds) / statistics.median(self.baseline_seconds)

    def as_json(self) -> dict[str, object]:
        return {
            "measured": self.measured,
            "baseline": self.baseline,
            "measured_median_s": round(statistics.median(self.measured_seconds), 4),
            "baseline_median_s": round(statistics.median(self.baseline_seconds), 4),
            "runs": len(self.measured_seconds),
            "ratio": round(self.ratio, 3),
            "target": self.target,
            "met": self.ratio <= self.target,
        }


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
    times: dict[str, list[float]] = {"measured": [], "baseline": []}
    for number in range(runs + 1):
        for side, (_label, action) in (("baseline", baseline), ("measured", measured)):
            between()
            start = time.perf_counter()
            action()
            if number:
                times[side].append(time.perf_counter() - start)
    result = Comparison(name, measured[0], baseline[0], target, times["measured"], times["baseline"])
    print(f"{name}: {result.ratio:.2f} (at most {target:.2f})", file=sys.stderr, flush=True)
    return result
