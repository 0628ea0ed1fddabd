"""Ops for numbers, arrays, bytes and JSON."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from beton import fields
from beton.arrays import Array, Ids
from beton.codec import gather
from beton.fields.base import first_true
from beton.ops.step import Op, Spec, Step, require_field
from beton.reader import Column
from beton.rng import Key


@dataclass(frozen=True)
class Scalar(Op):
    """A number per sample: int64 or float64 (b,)."""

    def bind(self, column: Column, _ids: Ids, rows: int) -> Step:
        """Bind to an int or float field."""
        require_field(column, self, fields.IntField, fields.FloatField)
        values = column.metadata

        def run(ids: Ids, _key: Key, out: Mapping[str, Array]) -> None:
            gather.gather_numbers(values, ids, out[""])

        return Step({"": Spec((rows,), values.dtype)}, run)


@dataclass(frozen=True)
class FixedArray(Op):
    """An array per sample, with the field's dtype and shape: (b, *shape)."""

    def bind(self, column: Column, _ids: Ids, rows: int) -> Step:
        """Bind to an ndarray or torch tensor field."""
        require_field(column, self, fields.NDArrayField)
        declared = column.field
        assert isinstance(declared, fields.NDArrayField)

        def run(ids: Ids, _key: Key, out: Mapping[str, Array]) -> None:
            payloads = out[""].reshape(rows, -1).view(np.uint8)
            gather.gather(column.data, column.take(ids).starts, payloads)

        return Step({"": Spec((rows, *declared.shape), declared.dtype)}, run)


@dataclass(frozen=True)
class Bytes(Op):
    """Bytes or JSON text per sample: uint8 (b, longest), zero-padded, and "size" int64 (b,)."""

    def bind(self, column: Column, ids: Ids, rows: int) -> Step:
        """Bind to a bytes or JSON field."""
        require_field(column, self, fields.BytesField)
        longest = int(column.metadata["size"][ids].max())
        text = Spec((rows, longest), np.dtype(np.uint8))
        size = Spec((rows,), np.dtype(np.int64))

        def run(ids: Ids, _key: Key, out: Mapping[str, Array]) -> None:
            taken = column.take(ids)
            if (row := first_true(taken.sizes > longest)) is not None:
                got, expected = int(taken.sizes[row]), f"at most {longest}"
                raise column.changed("bytes of a sample", int(ids[row]), got, expected)
            out["size"][: len(ids)] = taken.sizes
            gather.gather_padded(column.data, taken.starts, taken.sizes, out[""])

        return Step({"": text, "size": size}, run)
