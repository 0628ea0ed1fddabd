"""Nested plain data with tensors: stored as JSON and tensors, and equal when read back."""

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.runtime.files import tensor_bytes
from pipeline.runtime.trees import pack, unpack

tensors = st.lists(st.integers(-9, 9), max_size=3).map(torch.tensor)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | tensors
trees = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=3) | st.integers() | st.sampled_from(["$tensor", "$items"]),
            inner,
            max_size=3,
        )
    ),
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return [*one] == [*other] and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other or one != one)  # also NaN


@given(trees)
def test_a_tree_is_read_back_equal(tree: Any) -> None:
    values, found = pack(tree)
    assert same(unpack(json.loads(json.dumps(values)), found), tree)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 1, 1), (2, 1, 4, 5), (6, 4)])
@pytest.mark.parametrize("last", [False, True])
def test_channels_last_is_kept(shape: tuple[int, ...], last: bool) -> None:
    tensor = torch.rand(shape)
    if last and len(shape) == 4:
        tensor = tensor.to(memory_format=torch.channels_last)
    values, found = pack(tensor)
    stored = {name: one.contiguous() for name, one in found.items()}
    again = unpack(json.loads(json.dumps(values)), stored)
    assert torch.equal(again, tensor)
    for layout in (torch.contiguous_format, torch.channels_last)[: len(shape) // 2]:
        expected = tensor.is_contiguous(memory_format=layout)
        assert again.is_contiguous(memory_format=layout) == expected


def test_the_state_of_an_optimizer_is_read_back() -> None:
    layer = nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    values, found = pack(optimizer.state_dict())
    tensor_bytes(found)
    again = torch.optim.AdamW(layer.parameters(), lr=0.5)
    again.load_state_dict(unpack(json.loads(json.dumps(values)), found))
    assert same(again.state_dict()["state"], optimizer.state_dict()["state"])
    assert again.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, [object()], {"a": {"b": 1j}}])
def test_other_values_are_not_packed(value: object) -> None:
    with pytest.raises(TypeError, match="expected plain data or a tensor"):
        pack(value)


@pytest.mark.parametrize(
    "value",
    [{"$tensor": "x"}, {"$tensor": 3}, {"$items": 3}, {"$items": [1]}, {"$items": [[[], 1]]}],
)
def test_other_json_is_not_unpacked(value: object) -> None:
    with pytest.raises(ValueError, match="no "):
        unpack([value], {})
