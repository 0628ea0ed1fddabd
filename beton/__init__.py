"""The .beton dataset format and its loader: numpy and numba, nothing of training."""

from beton.errors import BetonError, ChecksumError, FormatError, SampleError
from beton.fields import (
    BytesField,
    Field,
    FloatField,
    InkField,
    IntField,
    JSONField,
    NDArrayField,
    RGBImageField,
    TorchTensorField,
)
from beton.reader import Column, Reader
from beton.writer import Skip, Summary, write

__all__ = [
    "BetonError",
    "BytesField",
    "ChecksumError",
    "Column",
    "Field",
    "FloatField",
    "FormatError",
    "InkField",
    "IntField",
    "JSONField",
    "NDArrayField",
    "RGBImageField",
    "Reader",
    "SampleError",
    "Skip",
    "Summary",
    "TorchTensorField",
    "write",
]
