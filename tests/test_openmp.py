"""Threads of OpenMP spin briefly, unless the user says otherwise, in every command.

What that is worth is measured in docs/train.md: it needs cores that other programs use.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHOW = """
import os, sys
from pipeline.runtime import signals
print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ],
)
def test_the_first_import_of_a_command_sets_it_before_torch_reads_it(
    given: dict[str, str], expected: str
) -> None:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # this process has its own
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", SHOW]
    done = subprocess.run(
        command, cwd=ROOT, env=inherited | given, check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.split() == [expected, "False"]


@pytest.mark.parametrize(
    "script",
    [path for path in sorted((ROOT / "jobs").rglob("*.py")) if path.name != "__init__.py"],
    ids=lambda path: path.stem,
)
def test_a_command_imports_the_package_first(script: Path) -> None:
    imports = [
        node
        for node in ast.parse(script.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert isinstance(imports[0], ast.ImportFrom)
    assert str(imports[0].module).split(".")[0] == "pipeline"
