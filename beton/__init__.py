"""The .beton dataset format and its loader, built on numpy and numba."""

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
from beton.loader import Batch, Loader
from beton.order import Shard
from beton.reader import Column, Reader
from beton.writer import Skip, Summary, write

__all__ = [
    "Batch",
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
    "Loader",
    "NDArrayField",
    "RGBImageField",
    "Reader",
    "SampleError",
    "Shard",
    "Skip",
    "Summary",
    "TorchTensorField",
    "write",
]
