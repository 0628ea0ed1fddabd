"""Array types for signatures. Docstrings give the shapes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BoolArray = NDArray[np.bool_]
Uint8Array = NDArray[np.uint8]
Int64Array = NDArray[np.int64]
Float64Array = NDArray[np.float64]
Ids = Int64Array  # (n,) indices of samples
RunArray = NDArray[np.uint16]  # (n, 4) rows of (row, start, end, value)
