"""The cache of compiled kernels: damaged, unwritable, full, or written by several processes.

Each start is a process of its own. Simulated: a full disk, by a limit on the sizes of files.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from beton import jit

KERNELS = """
import resource, sys
import numpy as np
from beton.jit import kernel

@kernel
def total(values):
    result = values[0] * 0
    for value in values:
        result += value
    return result

if len(sys.argv) > 1:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
results = [int(total(np.arange(10, dtype=kind))) for kind in ("u1", "i8", "f4")]
print(results, len(total.stats.cache_hits))
"""


class Checkout:
    """A module with a kernel, and a folder for its machine code."""

    def __init__(self, folder: Path) -> None:
        self.script, self.cache = folder / "kernels.py", folder / "cache"
        self.script.write_text(KERNELS)

    def begin(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(self.script), *arguments],
            env={**os.environ, "NUMBA_CACHE_DIR": str(self.cache), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run the kernel for three types; return the number of cache hits and the warnings."""
        return finish(self.begin(*arguments, **environment))

    def files(self) -> list[Path]:
        return sorted(self.cache.rglob("*.kernel"))


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.startswith("[45, 45, 45]")
    return int(output.split("]")[1]), errors


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_damaged_machine_code_is_compiled_anew(checkout: Checkout) -> None:
    assert checkout.start() == (0, "")
    assert checkout.start() == (3, "")
    random.seed(1)
    for damage in (
        lambda data: data[:0],
        lambda data: data[:1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: random.randbytes(len(data)),
        lambda data: flip(data, random.randrange(64)),
        lambda data: flip(data, random.randrange(64, len(data))),
    ):
        path = random.choice(checkout.files())
        path.write_bytes(damage(path.read_bytes()))
        hits, warning = checkout.start()
        assert hits == 2
        assert f"{path}: the cached machine code is not used" in warning
        assert warning.count("RuntimeWarning") == 1
    assert checkout.start() == (3, "")
    assert all(path.suffix == ".kernel" for path in checkout.cache.rglob("*.*"))


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


def test_changed_code_is_compiled_anew(checkout: Checkout) -> None:
    checkout.start()
    changed = KERNELS.replace("result = values[0] * 0", "result = values[0] * 0 * 1")
    checkout.script.write_text(changed)
    files = checkout.files()
    assert checkout.start() == (0, "")
    assert checkout.files() == files  # not more and more of them
    assert checkout.start() == (3, "")


CALLED = """
from beton.jit import kernel

@kernel
def first(values):
    return values[0] * 0
"""


@pytest.mark.parametrize(
    ("old", "new"), [("return values", "return 1 + values"), ("values[0] * 0", "values[0] - 0")]
)
def test_a_change_in_the_file_of_a_called_kernel_compiles_anew(
    checkout: Checkout, old: str, new: str
) -> None:
    called = checkout.script.with_name("called.py")
    called.write_text(CALLED)
    source = KERNELS.replace("import kernel", "import kernel\nfrom called import first")
    checkout.script.write_text(source.replace("result = values[0] * 0", "result = first(values)"))
    assert checkout.start() == (0, "")
    assert checkout.start() == (3, "")
    called.write_text(CALLED.replace(old, new))
    process = checkout.begin()
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert output.split() == [
        *(["[46,", "46,", "46]"] if "1 +" in new else ["[45,", "45,", "45]"]),
        "0",
    ]


def test_machine_code_is_that_of_the_file_that_was_imported(checkout: Checkout) -> None:
    """A file changes after a process has imported it and before it compiles its kernel."""
    called = checkout.script.with_name("called.py")
    changed = CALLED.replace("return values", "return 1 + values")
    change = f"from pathlib import Path\nPath(__file__).write_text({changed!r})\n"
    called.write_text(CALLED + change)
    source = KERNELS.replace("import kernel", "import kernel\nfrom called import first")
    checkout.script.write_text(source.replace("result = values[0] * 0", "result = first(values)"))
    assert checkout.start() == (0, "")
    output, errors = checkout.begin().communicate(timeout=120)
    assert (output.split(), errors) == (["[46,", "46,", "46]", "0"], "")


def test_a_change_of_the_decorator_compiles_anew(checkout: Checkout) -> None:
    decorator = checkout.script.with_name("decorator.py")
    text = Path(jit.__file__).read_text()
    decorator.write_text(text)
    checkout.script.write_text(KERNELS.replace("beton.jit", "decorator"))
    assert checkout.start() == (0, "")
    assert checkout.start() == (3, "")
    decorator.write_text(text.replace("nogil=True", "nogil=True, fastmath=True"))
    assert checkout.start() == (0, "")


def test_a_change_of_an_imported_number_compiles_anew(checkout: Checkout) -> None:
    numbers = checkout.script.with_name("numbers_.py")
    numbers.write_text("ZERO = 0")
    source = KERNELS.replace("import kernel", "import kernel\nfrom numbers_ import ZERO")
    checkout.script.write_text(source.replace("values[0] * 0", "values[0] * ZERO"))
    assert checkout.start() == (0, "")
    assert checkout.start() == (3, "")
    numbers.write_text("ZERO = 0 * 7")
    assert checkout.start() == (3, "")
    numbers.write_text("ZERO = 2 - 1")
    output, _ = checkout.begin().communicate(timeout=120)
    assert output.split() == ["[45,", "45,", "45]", "0"]


def test_a_file_of_another_signature_is_not_used(checkout: Checkout) -> None:
    checkout.start()
    first, second, _ = checkout.files()
    first.write_bytes(second.read_bytes())
    assert checkout.start() == (2, "")


def test_two_first_starts_at_once(checkout: Checkout) -> None:
    for process in [checkout.begin() for _ in range(2)]:
        assert finish(process)[1] == ""
    assert len(checkout.files()) == 3
    assert checkout.start() == (3, "")


def test_a_full_disk_is_a_warning(checkout: Checkout) -> None:
    hits, warning = checkout.start("1000")
    assert hits == 0
    assert f"{checkout.cache}" in warning
    assert "File too large; machine code is not cached" in warning
    assert checkout.files() == []
    assert checkout.start() == (0, "")
    assert checkout.start() == (3, "")


def test_without_a_writable_folder_every_start_compiles(checkout: Checkout) -> None:
    # Root may write everywhere but to files that are in the place of folders.
    checkout.cache.touch()
    (checkout.script.parent / "__pycache__").touch()
    for _ in range(2):
        assert checkout.start(XDG_CACHE_HOME=str(checkout.script)) == (0, "")
