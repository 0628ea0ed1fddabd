"""What the packages may know of each other, held on the source text itself."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BETON_MAY_IMPORT = {"beton", "llvmlite", "numba", "numpy", "simplejpeg"} | set(
    sys.stdlib_module_names
)
COMMAND_MAY_IMPORT = BETON_MAY_IMPORT | {"PIL", "rich"}
IMPORT_NAMES = {"pillow": "PIL"}
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:work|farm|root|home|Users)/")

Rule = Callable[[ast.Module], Iterator[str]]


def imported(tree: ast.Module) -> Iterator[str]:
    """Full names of what is imported, wherever the import stands; a relative one stays inside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def used(tree: ast.Module) -> Iterator[str]:
    """Every dotted name in an expression: `print`, `os.environ`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            yield ast.unparse(node)


def only_imports(allowed: set[str]) -> Rule:
    return lambda tree: (n for n in imported(tree) if n.split(".")[0] not in allowed)


def never_imports(*forbidden: str) -> Rule:
    return lambda tree: (n for n in imported(tree) if n.split(".")[0] in forbidden)


def never_names(*forbidden: str) -> Rule:
    def rule(tree: ast.Module) -> Iterator[str]:
        return (n for n in (*imported(tree), *used(tree)) if n in forbidden)

    return rule


def never_says(word: str) -> Rule:
    """No attribute and no string is exactly this word."""

    def rule(tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == word:
                yield ast.unparse(node)
            elif isinstance(node, ast.Constant) and node.value == word:
                yield repr(word)

    return rule


RULES: dict[str, tuple[Callable[[str], bool], Rule]] = {
    "beton imports numpy, numba and its JPEG codec": (
        lambda path: path.startswith("beton/") and path != "beton/__main__.py",
        only_imports(BETON_MAY_IMPORT),
    ),
    "beton's command may also draw and print tables": (
        lambda path: path == "beton/__main__.py",
        only_imports(COMMAND_MAY_IMPORT),
    ),
    "beton does not print and reads no environment": (
        lambda path: path.startswith("beton/") and path != "beton/__main__.py",
        never_names("print", "os.environ", "os.getenv", "os.putenv", "sys.stdout", "sys.stderr"),
    ),
    "pipeline does not import jobs": (
        lambda path: path.startswith("pipeline/"),
        never_imports("jobs", "tests"),
    ),
    "pipeline reads no command line": (
        lambda path: path.startswith("pipeline/"),
        never_names("sys.argv", "tyro", "tyro.cli", "argparse", "argparse.ArgumentParser"),
    ),
    "pipeline/train.py alone uses Accelerator": (
        lambda path: (
            path.startswith(("beton/", "pipeline/", "jobs/")) and path != "pipeline/train.py"
        ),
        never_names("accelerate.Accelerator", "Accelerator"),
    ),
    "no conclusion rests on how pictures were drawn": (
        lambda path: (
            path.startswith(("beton/", "pipeline/", "jobs/"))
            and not path.startswith("pipeline/sources/")
            and path != "pipeline/prepare.py"  # writes it down
        ),
        never_says("generator"),
    ),
    "jobs do not import each other": (
        lambda path: path.startswith("jobs/"),
        never_imports("jobs", "tests"),
    ),
}


def declared(*extras: str) -> set[str]:
    """Names of the packages that pyproject.toml asks for, as they are imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    names = {re.split(r"[^\w-]", requirement)[0].replace("-", "_") for requirement in wanted}
    return {IMPORT_NAMES.get(name, name) for name in names}


def broken_rules(path: str, source: str) -> list[str]:
    tree = ast.parse(source)
    return [
        f"{path}: {name}, got {offence}"
        for name, (applies, rule) in RULES.items()
        if applies(path)
        for offence in rule(tree)
    ]


def tree_files() -> list[Path]:
    """Every file that belongs to the project, new ones included, ignored ones left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_imports_run_one_way() -> None:
    sources = [p for top in ("beton", "pipeline", "jobs") for p in (ROOT / top).rglob("*.py")]
    assert len(sources) > 3
    assert [
        line
        for p in sources
        for line in broken_rules(p.relative_to(ROOT).as_posix(), p.read_text())
    ] == []


def test_what_is_imported_is_declared() -> None:
    own = {"beton", "pipeline", "jobs", *sys.stdlib_module_names}
    undeclared = {
        f"{path.relative_to(ROOT)}: {name}"
        for top, extras in {"beton": [], "pipeline": [], "jobs": ["bench", "ffcv"]}.items()
        for path in (ROOT / top).rglob("*.py")
        for name in only_imports(own | declared(*extras))(ast.parse(path.read_text()))
    }
    assert undeclared == set()


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("beton/loader.py", "import torch"),
        ("beton/loader.py", "def f():\n    from pipeline.train import train"),
        ("beton/reader.py", "from rich.table import Table"),
        ("beton/__main__.py", "import torch.nn"),
        ("beton/rng.py", "import os\nseed = os.environ['SEED']"),
        ("beton/rng.py", "from os import environ\nfrom pipeline import recipe"),
        ("beton/writer.py", "print('written')"),
        ("pipeline/prepare.py", "import jobs.prep"),
        ("pipeline/prepare.py", "import sys\npath = sys.argv[1]"),
        ("pipeline/sources/idx.py", "import tyro"),
        ("pipeline/report.py", "from accelerate import Accelerator"),
        ("pipeline/report.py", "import accelerate\na = accelerate.Accelerator()"),
        ("jobs/part1.py", "from jobs.prep import main"),
        ("pipeline/report.py", "kind = file.info['generator']['mislabelling']"),
        ("jobs/evaluate.py", "kind = reader.info.get('generator', {})"),
        ("pipeline/train.py", "kind = source.generator"),
    ],
)
def test_a_broken_rule_is_seen(path: str, source: str) -> None:
    assert broken_rules(path, source)


def test_no_path_of_one_machine() -> None:
    found = []
    for path in tree_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or a golden file
        found += [f"{path.relative_to(ROOT)}: {m.group()}" for m in MACHINE_PATH.finditer(text)]
    assert found == []


IMPORT_ALL = """
import os, pkgutil, sys, threading
import numba, numpy, simplejpeg
before = dict(os.environ), threading.active_count(), numba.get_num_threads(), os.getcwd()
import beton
for module in pkgutil.walk_packages(beton.__path__, "beton."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
after = dict(os.environ), threading.active_count(), numba.get_num_threads(), os.getcwd()
assert after == before, (before, after)
heavy = {"torch", "accelerate", "rich", "PIL", "pipeline"} & set(sys.modules)
assert not heavy, heavy
"""


def test_importing_beton_has_no_effects(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def kernels_of(tree: ast.Module) -> list[ast.FunctionDef]:
    """The compiled functions of a file."""
    return [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(decorator) == "kernel" for decorator in node.decorator_list)
    ]


def foreign_calls(tree: ast.Module) -> Iterator[str]:
    """What kernels use of our own other files: a cached kernel would not see it change."""
    foreign = {
        name.asname or name.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] in ("beton", "pipeline")
        for name in node.names
    } - {"kernel", "prefetch"}
    for function in kernels_of(tree):
        body = ast.Module(function.body, [])
        yield from (name for name in used(body) if name.split(".")[0] in foreign)


def test_kernels_use_nothing_of_another_file() -> None:
    trees = [ast.parse(path.read_text()) for path in (*ROOT.glob("*/*.py"), *ROOT.glob("*/*/*.py"))]
    assert sum(len(kernels_of(tree)) for tree in trees) > 10
    assert [name for tree in trees for name in foreign_calls(tree)] == []


def test_a_kernel_that_uses_another_file_is_caught() -> None:
    text = "from beton import ink\n@kernel\ndef f(x):\n    return ink.unpack(x)\n"
    assert list(foreign_calls(ast.parse(text))) == ["ink.unpack", "ink"]
