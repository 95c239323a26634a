"""Results: pairs of runs in turn, medians, rows of the table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Row:
    """One line of the table; *is_met* and *is_aim_met* are None where nothing was asked for."""

    benchmark: str
    beside: str
    must: str
    aim: str
    found: str
    is_met: bool | None
    is_aim_met: bool | None


@dataclass(frozen=True)
class Curve:
    """Something that should not grow: (how many files, cost of one)."""

    title: str
    unit: str
    points: tuple[tuple[int, float], ...]


def at_least(benchmark: str, beside: str, value: float, must: float, aim: float, note: str) -> Row:
    return Row(benchmark, beside, f"≥ {must:g}", f"≥ {aim:g}", note, value >= must, value >= aim)


def at_most(benchmark: str, beside: str, value: float, must: float, aim: float | None, note: str) -> Row:
    is_aim_met = None if aim is None else value <= aim
    return Row(
        benchmark, beside, f"≤ {must:g}", "" if aim is None else f"≤ {aim:g}", note, value <= must, is_aim_met
    )


def in_turn(rounds: int, *contestants: Callable[[], float]) -> list[list[float]]:
    """A B A B …: what each of them measured, round by round."""
    found: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for contestant, values in zip(contestants, found, strict=True):
            values.append(contestant())
    return found


def ratio(numerators: Iterable[float], denominators: Iterable[float]) -> float:
    """The median over pairs of their ratio."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def percentile(values: Iterable[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
