"""What an op is, and what all ops share.

An op is a small frozen dataclass. The loader binds it to a column of a file once. The result is a
step, which fills arrays for every batch, in any thread.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from beton import fields
from beton.arrays import Array, Ids, Int64Array
from beton.errors import BetonError
from beton.fields.base import first_true
from beton.reader import Column
from beton.rng import Key


class Spec(NamedTuple):
    """Shape (with the batch dimension) and dtype of an array of every batch."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Step:
    """An op that is bound to a column.

    `outputs` are its arrays by suffix: "" has the field's name, "size" is "field.size". `run(ids,
    key, out)` writes the samples `ids`, at least one, to the first len(ids) rows of `out`; `key`
    determines the random numbers. Several threads call `run` at once.
    """

    outputs: Mapping[str, Spec]
    run: Callable[[Ids, Key, Mapping[str, Array]], None]


class Op(Protocol):
    """A conversion of a field to arrays: hashable, comparable, and defined by its arguments."""

    def bind(self, column: Column, ids: Ids, rows: int, /) -> Step:
        """Return a step for batches of `rows` rows from the samples `ids` of a column.

        Raises BetonError if the op does not support the column's field.
        """
        ...


def require_field(column: Column, op: Op, *kinds: type[fields.Field]) -> None:
    """Raise BetonError if the column's field is not one of `kinds`."""
    if not isinstance(column.field, kinds):
        raise BetonError(
            f"{type(op).__name__} does not support this kind of field",
            file=column.file,
            field=column.name,
            got=type(column.field).__name__,
            expected=" or ".join(kind.__name__ for kind in kinds),
        )


def image_sizes(records: Array) -> Int64Array:
    """Return (height, width) of the images of records (n,): int64 (n, 2)."""
    return np.stack([records["height"], records["width"]], axis=1, dtype=np.int64)


def common_size(column: Column, ids: Ids) -> tuple[int, int]:
    """Return (height, width) of the images `ids`. Raises BetonError if their sizes differ."""
    heights, widths = (column.metadata[side][ids] for side in ("height", "width"))
    size = int(heights[0]), int(widths[0])
    row = first_true((heights != size[0]) | (widths != size[1]))
    if row is not None:
        raise BetonError(
            "images of different sizes do not fit in one array; use Resize",
            file=column.file,
            field=column.name,
            sample=int(ids[row]),
            got=(int(heights[row]), int(widths[row])),
            expected=size,
        )
    return size
