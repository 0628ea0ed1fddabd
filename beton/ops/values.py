"""Ops for numbers, arrays, bytes and JSON."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from beton import fields
from beton.arrays import Array, Ids
from beton.codec import gather
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
            out[""][: len(ids)] = values[ids]

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
            gather.gather(column.data, column.regions(ids)[0], payloads)

        return Step({"": Spec((rows, *declared.shape), declared.dtype)}, run)


@dataclass(frozen=True)
class Bytes(Op):
    """Bytes or JSON text per sample: uint8 (b, longest), zero-padded, and "size" int64 (b,)."""

    def bind(self, column: Column, ids: Ids, rows: int) -> Step:
        """Bind to a bytes or JSON field."""
        require_field(column, self, fields.BytesField)
        longest = int(column.regions(ids)[1].max())
        text = Spec((rows, longest), np.dtype(np.uint8))
        size = Spec((rows,), np.dtype(np.int64))

        def run(ids: Ids, _key: Key, out: Mapping[str, Array]) -> None:
            pointers, sizes = column.regions(ids)
            out["size"][: len(ids)] = sizes
            gather.gather_padded(column.data, pointers, sizes, out[""])

        return Step({"": text, "size": size}, run)
