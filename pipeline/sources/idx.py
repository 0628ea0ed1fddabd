"""IDX files, gzipped or not, in a folder or a zip archive: MNIST, EMNIST, Fashion-MNIST.

A set is a training pair and a test pair, or one of them: `[SET-]train-images-idx3-ubyte[.gz]` with
its `…-labels-idx1-ubyte[.gz]`, and `t10k` or `test` likewise. What is gzipped or in an archive is
inflated once per process into a nameless temporary file, and pictures are read from there one at a
time, so that no set is ever whole in memory. The format: http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import re
import shutil
import string
import struct
import tempfile
import zlib
import os
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.base import FREE, TEST, Entries, Pixels, Source, SourceError
from pipeline.sources.files import Files, Tree

_FILE = re.compile(
    r"(?P<set>.*?)[-_]?(?P<part>train|t10k|test)[-_]images([-.]idx3)?([-.]ubyte)?(?P<gz>\.gz)?"
)
_HEADER = struct.Struct(">HBB")
_UBYTE = 8

_DIGITS = tuple(string.digits)
_LETTERS = tuple(string.ascii_uppercase)
_MERGED = (*_DIGITS, *_LETTERS, *"abdefghnqrt")  # letters whose two cases look alike are one
CLASSES = {
    "emnist-byclass": (*_DIGITS, *_LETTERS, *string.ascii_lowercase),
    "emnist-bymerge": _MERGED,
    "emnist-balanced": _MERGED,
    "emnist-letters": _LETTERS,
    "emnist-digits": _DIGITS,
    "emnist-mnist": _DIGITS,
    "fashion": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}
