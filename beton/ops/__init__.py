"""Ops: how a loader turns a field into arrays of a batch.

A project adds an op of its own as a class with a `bind` method (`step.Op`). Ops read records and
payloads from a `Column`, whatever the file's layout.
"""

from beton import fields
from beton.crop import CentreCrop, RandomResizedCrop
from beton.ops.rgb import Rgb, RgbResize
from beton.ops.runs import Pixels, Resize, Runs
from beton.ops.step import Op, Spec, Step
from beton.ops.values import Bytes, FixedArray, Scalar
from beton.reader import Column
from beton.transforms import Jitter, Normalize, RgbNormalize

__all__ = [
    "Bytes",
    "CentreCrop",
    "FixedArray",
    "Jitter",
    "Normalize",
    "Op",
    "Pixels",
    "RandomResizedCrop",
    "Resize",
    "Rgb",
    "RgbNormalize",
    "RgbResize",
    "Runs",
    "Scalar",
    "Spec",
    "Step",
    "default",
]


def default(column: Column) -> Op:
    """Return the op that loads a field as it is stored."""
    kinds: dict[type[fields.Field], Op] = {
        fields.NDArrayField: FixedArray(),
        fields.BytesField: Bytes(),
        fields.RGBImageField: Rgb(),
        fields.InkField: Pixels(),
    }
    return next((op for kind, op in kinds.items() if isinstance(column.field, kind)), Scalar())
