"""Keeps those suggestions of an error that lead on; each is tried on some names of each folder."""

import shlex
from collections.abc import Iterator, Sequence
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
        works = _suggestions_that_work(error, archive, some, options, min_classes)
        raise LayoutError(error.reason, tuple(works)) from None


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


def _suggestions_that_work(
    error: LayoutError,
    archive: Archive,
    names: Sequence[str],
    options: LayoutOptions,
    min_classes: int,
    questions: int = _QUESTIONS,
) -> Iterator[str]:
    """Yield the suggestions that lead to a layout, if necessary by others that follow."""
    for suggestion in dict.fromkeys(error.suggestions):
        added = with_suggestion(options, suggestion)
        try:
            found = Inference(archive, names, added).run()
            works = len(found.annotations.classes) >= min_classes
        except LayoutError as other:
            # The same error again means that the suggestion changed nothing.
            works = questions > 1 and other.reason != error.reason
            works = works and any(
                _suggestions_that_work(other, archive, names, added, min_classes, questions - 1)
            )
        except SourceError:
            works = False
        if works:
            yield suggestion


def _some_of_each_folder(archive: Archive, names: Sequence[str]) -> list[str]:
    paths = Paths.of(archive.path, names)
    order = np.argsort(paths.folder_of, kind="stable")
    rank = np.arange(len(names)) - np.repeat(np.cumsum(paths.counts) - paths.counts, paths.counts)
    return [names[row] for row in np.sort(order[rank < _TRIED_NAMES])]
