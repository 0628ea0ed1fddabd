"""Keeps those suggestions of an error that lead on; each is tried on some names of each folder."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.data.archives.base import Archive
from pipeline.data.base import LayoutError, SourceError
from pipeline.data.layout.folders.paths import Paths
from pipeline.data.layout.inference import ImageLayout, Inference
from pipeline.data.layout.options import LayoutOptions, parse_rule

_TRIED_NAMES = 50  # of each folder
_QUESTIONS = 3  # that may follow each other


def infer_layout(
    archive: Archive, names: Sequence[str], options: LayoutOptions, min_classes: int = 2
) -> ImageLayout:
    """Return the layout of an archive's image files, by their relative names.

    Raises LayoutError for an ambiguous or contradictory layout; each of its suggestions leads to
    a layout of `min_classes` classes, or to another question that has an answer.
    """
    try:
        return Inference(archive, names, options).run()
    except LayoutError as error:
        some = _some_of_each_folder(archive, names)
        works = [
            suggestion
            for suggestion in dict.fromkeys(error.suggestions)
            if _leads_on(archive, some, with_suggestion(options, suggestion), min_classes)
        ]
        raise LayoutError(error.reason, works) from None


def with_suggestion(options: LayoutOptions, suggestion: str) -> LayoutOptions:
    """Return the options with those of a suggestion, as if they were typed behind them."""
    words = shlex.split(suggestion)
    for name, value in zip(words[::2], words[1::2], strict=True):
        match name:
            case "--exclude":
                options = replace(options, exclude=(*options.exclude, value))
            case "--include":
                options = replace(options, include=(*options.include, value))
            case "--class-from":
                options = replace(options, class_from=parse_rule(name, value))
            case "--split-from":
                options = replace(options, split_from=parse_rule(name, value))
            case "--writer-from":
                options = replace(options, writer_from=parse_rule(name, value))
            case "--columns":
                options = replace(options, columns=LayoutOptions.parse(columns=value).columns)
            case _:
                raise SourceError(f"{name}: no option of a layout")
    return options


def _leads_on(
    archive: Archive,
    names: Sequence[str],
    options: LayoutOptions,
    min_classes: int,
    questions: int = _QUESTIONS,
) -> bool:
    try:
        found = Inference(archive, names, options).run()
        return len(found.annotations.classes) >= min_classes
    except LayoutError as error:
        return questions > 1 and any(
            _leads_on(archive, names, with_suggestion(options, other), min_classes, questions - 1)
            for other in error.suggestions
        )
    except SourceError:
        return False


def _some_of_each_folder(archive: Archive, names: Sequence[str]) -> list[str]:
    paths = Paths.of(archive.path, names)
    order = np.argsort(paths.folder_of, kind="stable")
    rank = np.arange(len(names)) - np.repeat(np.cumsum(paths.counts) - paths.counts, paths.counts)
    return [names[row] for row in np.sort(order[rank < _TRIED_NAMES])]
