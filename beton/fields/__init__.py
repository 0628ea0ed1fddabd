"""All kinds of fields, and the table that maps a file's descriptors to them.

Seven are FFCV's, with its type ids, records and payloads. `InkField` is inkrun's own: it has FFCV's
type id for custom fields, 255, and a tag in its arguments.
"""

from beton.errors import FormatError
from beton.fields.base import Field
from beton.fields.image import InkField, RGBImageField
from beton.fields.plain import (
    BytesField,
    FloatField,
    IntField,
    JSONField,
    NDArrayField,
    TorchTensorField,
)

__all__ = [
    "BytesField",
    "Field",
    "FloatField",
    "InkField",
    "IntField",
    "JSONField",
    "NDArrayField",
    "RGBImageField",
    "TorchTensorField",
    "field_from",
]

KINDS: dict[int, type[Field]] = {
    kind.type_id: kind
    for kind in (
        FloatField,
        IntField,
        RGBImageField,
        BytesField,
        NDArrayField,
        JSONField,
        TorchTensorField,
    )
}
CUSTOM: dict[bytes, type[Field]] = {InkField.TAG: InkField}


def field_from(type_id: int, arguments: bytes) -> Field:
    """Return the field that a descriptor declares. Raises FormatError."""
    kind = KINDS.get(type_id) or (CUSTOM.get(arguments[:16]) if type_id == 255 else None)
    if kind is None:
        what = "unknown custom field" if type_id == 255 else "unknown type of a field"
        raise FormatError(what, got=type_id, expected=f"{min(KINDS)} to {max(KINDS)}")
    return kind.from_arguments(arguments)
