"""Placeholder until the pixels branch is merged."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Histogram:
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Copies:
    groups: int = 0
    images: int = 0
    across_splits: int = 0
    disagreeing: int = 0
    examples: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Survey:
    images: int
    modes: Mapping[str, int]
    changes: Mapping[str, int]
    sizes: tuple[tuple[int, int, int], ...]
    height: Histogram
    width: Histogram
    ink: Histogram
    blank: int = 0
    blank_by_class: Mapping[str, int] = field(default_factory=dict)
    copies: Copies = Copies()
    polarity: str = "dark"
    disagreeing: int = 0
    scale: tuple[float, float] | None = None
    scale_words: str = ""
    warnings: tuple[str, ...] = ()
