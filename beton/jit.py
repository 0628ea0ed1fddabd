"""How kernels are compiled: one decorator, typed, so that the rest need not know numba.

A kernel is a module-level function of arrays and numbers. It releases the interpreter lock, so the
loader's threads run kernels side by side, and its machine code is kept on disk, so that only the
first process on a machine pays for compilation.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

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
