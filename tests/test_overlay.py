"""Environments laid over the main one: they see its packages, and hide some by their own."""

import subprocess
import sys
from pathlib import Path

import numpy

from pipeline.runtime import overlay


def python(folder: Path, code: str) -> str:
    command = [str(folder / "bin" / "python"), "-c", code]
    return subprocess.check_output(command, cwd=folder, text=True, env={}).strip()


def test_an_overlay_sees_the_main_packages_and_hides_them_by_its_own(tmp_path: Path) -> None:
    script = Path(overlay.__file__)
    subprocess.run([sys.executable, script, tmp_path / "over lay"], check=True)
    folder = tmp_path / "over lay"
    shown = python(folder, "import numpy, pip, sys; print(numpy.__file__, sys.prefix)")
    assert shown == f"{numpy.__file__} {folder}"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "numpy.py").write_text("version = 'own'")
    assert python(folder, "import numpy; print(numpy.version)") == "own"
    overlay.create(folder)
    assert python(folder, "import numpy; print(numpy.__file__)") == numpy.__file__
