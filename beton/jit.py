"""How kernels are compiled: one decorator, typed, so that the rest need not know numba.

A kernel is a module-level function of arrays and numbers. It releases the interpreter lock, so the
loader's threads run kernels side by side, and its machine code is kept on disk, so that only the
first process on a machine pays for compilation.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` on its first call, without the interpreter lock, cached on disk.

    Where no folder for the cache can be written to, every process compiles for itself. A kernel
    must call only kernels of its own file: that file's date is all the cache looks at.
    """
    try:
        compiled = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        compiled = numba.njit(nogil=True)(function)
    return cast(Callable[P, R], compiled)


@intrinsic
def _prefetch(context: Any, data: Any, index: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view: Any = make_array  # whose types numba does not give
        array = view(signature.args[0])(context, builder, arguments[0])
        address = builder.gep(array.data, [arguments[1]])
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(function, [address, flag(0), flag(3), flag(1)])  # to read, keep, data
        return context.get_dummy_value()

    return types.void(data, types.intp), generate


# prefetch(data, index): ask for the memory at data[index], uint8 in one dimension, without waiting
# for it. For kernels that go to random places: the next is on its way while one is worked on.
prefetch = cast(Callable[[Any, int], None], _prefetch)
