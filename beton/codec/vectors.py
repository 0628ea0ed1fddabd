"""Vectors of 16 int32 numbers in kernels, which become the CPU's vector instructions.

Kernels compute with them as with numbers: `+`, `-`, `*`, `|`, `<<` and `>>`, of two vectors or of a
vector and an integer, which stands for 16 equal ones. Numbers wrap around. Left to itself, the
compiler makes such instructions of a loop only if it can see that no two arrays overlap.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

from llvmlite import ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np.arrayobj import make_array

LANE_BITS = 4
LANES = 1 << LANE_BITS
COPIED = 32
Vector = Any


# Numba has few types.
_PrimitiveModel: Any = models.PrimitiveModel
_signature: Any = signature
_infer_global: Any = infer_global
_lower_builtin: Any = lower_builtin


class _Vector(types.Type):
    """The type of vectors in numba."""


VECTOR = _Vector("vector of int32")
_NUMBERS = ir.VectorType(ir.IntType(32), LANES)


@register_model(_Vector)
class _Model(_PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _NUMBERS)


def _splat(builder: Any, number: Any) -> Any:
    """Return a vector of 16 times an int64."""
    start = builder.insert_element(
        ir.Constant(_NUMBERS, ir.Undefined),
        builder.trunc(number, ir.IntType(32)),
        ir.Constant(ir.IntType(32), 0),
    )
    zeros = ir.Constant(_NUMBERS, [0] * LANES)
    return builder.shuffle_vector(start, ir.Constant(_NUMBERS, ir.Undefined), zeros)


def _define(operation: Callable[..., Any], method: str) -> None:
    """Define an operator as a method of llvmlite's builder."""
    kinds = [(VECTOR, VECTOR), (VECTOR, types.int64), (types.int64, VECTOR)]

    class Template(ConcreteTemplate):
        cases: ClassVar = [_signature(VECTOR, *pair) for pair in kinds]

    _infer_global(operation)(Template)
    for pair in kinds:

        def generate(_context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vectors = [
                argument if kind == VECTOR else _splat(builder, argument)
                for argument, kind in zip(arguments, signature.args, strict=True)
            ]
            return getattr(builder, method)(*vectors)

        _lower_builtin(operation, *pair)(generate)


for _operation, _method in (
    (operator.add, "add"),
    (operator.sub, "sub"),
    (operator.mul, "mul"),
    (operator.or_, "or_"),
    (operator.lshift, "shl"),
    (operator.rshift, "ashr"),
):
    _define(_operation, _method)


def _address(context: Any, builder: Any, kind: Any, content: Any, array: Any, index: Any) -> Any:
    """Return the address of array[index], of the type `kind`, for a vector of type `content`."""
    assert kind.layout == "C", "the numbers of a vector lie side by side"
    view: Any = make_array  # numba has no types for it
    data = view(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), content.as_pointer())


@intrinsic
def _vector(context: Any, number: Any) -> Any:  # noqa: ARG001
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[0])

    return VECTOR(types.int64), generate


@intrinsic
def _load(context: Any, array: Any, index: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = signature.args[0].dtype.bitwidth
        kind = ir.VectorType(ir.IntType(bits), LANES)
        address = _address(context, builder, signature.args[0], kind, *arguments)
        numbers = builder.load(address, align=bits // 8)
        if bits == 32:
            return numbers
        extend = builder.sext if signature.args[0].dtype.signed else builder.zext
        return extend(numbers, _NUMBERS)

    return VECTOR(array, types.int64), generate


@intrinsic
def _store(context: Any, array: Any, index: Any, vector: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, vector = arguments
        address = _address(context, builder, signature.args[0], _NUMBERS, array, index)
        builder.store(vector, address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), generate


@intrinsic
def _store_pixels(context: Any, array: Any, index: Any, vectors: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, vectors = arguments
        parts = [builder.extract_value(vectors, k) for k in range(len(signature.args[2]))]
        pixels = _interleaved(builder, [_clamped(builder, part) for part in parts])
        kind = pixels.type
        address = _address(context, builder, signature.args[0], kind, array, index)
        builder.store(pixels, address, align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, vectors), generate


def _clamped(builder: Any, vector: Any) -> Any:
    """Return the numbers of a vector as bytes; those below 0 become 0, those above 255 255."""
    for sign, limit in ((">", 255), ("<", 0)):
        limits = ir.Constant(_NUMBERS, [limit] * LANES)
        vector = builder.select(builder.icmp_signed(sign, vector, limits), limits, vector)
    return builder.trunc(vector, ir.VectorType(ir.IntType(8), LANES))


def _interleaved(builder: Any, parts: Sequence[Any]) -> Any:
    """Return the first numbers of all parts, then their second numbers, and so on."""
    order = [LANES * k + lane for lane in range(LANES) for k in range(len(parts))]
    while len(parts) > 1:  # one vector of all parts, one after another
        pairs = [(parts[k], parts[min(k + 1, len(parts) - 1)]) for k in range(0, len(parts), 2)]
        parts = [_shuffled(builder, *pair, range(2 * pair[0].type.count)) for pair in pairs]
    return _shuffled(builder, parts[0], parts[0], order)


def _shuffled(builder: Any, first: Any, second: Any, order: Sequence[int]) -> Any:
    """Return the numbers of two vectors in any order."""
    indices = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), list(order))
    return builder.shuffle_vector(first, second, indices)


@intrinsic
def _copy_bytes(context: Any, source: Any, start: Any, target: Any, to: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, bits = ir.VectorType(ir.IntType(8), COPIED), ir.IntType(COPIED)
        kinds = signature.args
        data = builder.load(_address(context, builder, kinds[0], kind, *arguments[:2]), align=1)
        builder.store(data, _address(context, builder, kinds[2], kind, *arguments[2:]), align=1)
        equal = builder.icmp_unsigned("==", data, ir.Constant(kind, [255] * COPIED))
        flags = builder.zext(builder.bitcast(equal, bits), ir.IntType(64))
        flags = builder.or_(flags, ir.Constant(ir.IntType(64), 1 << COPIED))
        return builder.cttz(flags, ir.Constant(ir.IntType(1), 1))

    return types.uint64(source, types.uint64, target, types.int64), generate


@intrinsic
def _is_zero(context: Any, vector: Any) -> Any:  # noqa: ARG001
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        differing = builder.icmp_signed("!=", arguments[0], ir.Constant(_NUMBERS, [0] * LANES))
        bits = ir.IntType(LANES)
        return builder.icmp_signed("==", builder.bitcast(differing, bits), ir.Constant(bits, 0))

    return types.boolean(vector), generate


# vector(number) is 16 times an integer. load(array, index) is array[index : index + 16],
# contiguous, of uint8, int16 or int32; store(array, index, vector) writes it to int32.
# store_pixels(array, index, vectors) writes n vectors, limited to 0 to 255, to uint8
# array[index : index + 16 * n], first the first numbers of all vectors.
# copy_bytes(source, start, target, to) copies COPIED bytes and returns how many are before the
# first byte 255. is_zero(vector) is whether all numbers are 0. Bounds are not checked.
vector = cast(Callable[[int], Vector], _vector)
load = cast(Callable[[Any, Any], Vector], _load)
store = cast(Callable[[Any, Any, Vector], None], _store)
store_pixels = cast(Callable[[Any, Any, tuple[Vector, ...]], None], _store_pixels)
copy_bytes = cast(Callable[[Any, Any, Any, Any], Any], _copy_bytes)
is_zero = cast(Callable[[Vector], bool], _is_zero)
