"""The decorator that compiles kernels with numba.

A kernel is a module-level function of arrays and numbers. It releases the interpreter lock, so the
loader's threads run kernels in parallel. Its machine code is cached on disk, so only the first
process on a machine compiles it.
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

    If no cache folder is writable, every process compiles the kernel. A kernel must call only
    kernels of its own file, because the cache depends on the date of that file alone.
    """
    try:
        compiled = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        compiled = numba.njit(nogil=True)(function)
    return cast(Callable[P, R], compiled)


@intrinsic
def _prefetch(context: Any, data: Any, index: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view: Any = make_array  # numba has no types for it
        array = view(signature.args[0])(context, builder, arguments[0])
        address = builder.gep(array.data, [arguments[1]])
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(function, [address, flag(0), flag(3), flag(1)])  # read, all caches, data
        return context.get_dummy_value()

    return types.void(data, types.intp), generate


# prefetch(data, index) starts to load data[index] of uint8 (n,) into the CPU's caches and does not
# wait, so that a kernel that reads random positions can load the next one while it works.
prefetch = cast(Callable[[Any, int], None], _prefetch)
