"""Nested plain data with tensors, as JSON values and a dictionary of tensors.

So the state of a training is stored without pickle: a tensor becomes {"$tensor": its name}, and a
dictionary with other keys than texts {"$items": pairs}. Tuples become lists. Of a tensor's layout
in memory, on which the last bits of sums depend, channels-last is kept.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def pack(tree: object) -> tuple[Any, dict[str, Tensor]]:
    """Return a tree as JSON values and tensors. Raises TypeError for values of another kind."""
    tensors: dict[str, Tensor] = {}

    def packed(value: object, name: str) -> Any:
        match value:
            case None | bool() | int() | float() | str():
                return value
            case Tensor():
                tensors[name] = value
                last = value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)
                kept = last and not value.is_contiguous()
                return {"$tensor": name, "channels_last": True} if kept else {"$tensor": name}
            case list() | tuple():
                return [packed(one, f"{name}.{place}") for place, one in enumerate(value)]
            case dict():
                items = [
                    (key, packed(one, f"{name}.{place}"))
                    for place, (key, one) in enumerate(value.items())
                ]
                if all(isinstance(key, str) and not key.startswith("$") for key in value):
                    return dict(items)
                return {"$items": [[packed(key, ""), one] for key, one in items]}
        raise TypeError(f"{name}: got a {type(value).__name__}, expected plain data or a tensor")

    return packed(tree, "state"), tensors


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the tree that `pack` got, tuples as lists. Raises ValueError for other values."""
    match value:
        case {"$tensor": name}:
            if not isinstance(name, str) or name not in tensors:
                raise ValueError(f"no tensor {name!r}")
            tensor = tensors[name]
            if "channels_last" in value and tensor.dim() == 4:
                return tensor.contiguous(memory_format=torch.channels_last)
            return tensor
        case {"$items": items}:
            try:
                return {key: unpack(one, tensors) for key, one in items}
            except TypeError as error:  # no pairs, or keys that are lists
                raise ValueError(f"no pairs: {error}") from error
        case dict():
            return {key: unpack(one, tensors) for key, one in value.items()}
        case list():
            return [unpack(one, tensors) for one in value]
    return value
