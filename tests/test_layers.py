"""What the packages may know of each other, held on the source text itself."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic

from pipeline.benchmarks.throughput.catalog import PEERS

ROOT = Path(__file__).resolve().parents[1]
BETON_MAY_IMPORT = {"beton", "llvmlite", "numba", "numpy", "simplejpeg"} | set(
    sys.stdlib_module_names
)
COMMAND_MAY_IMPORT = BETON_MAY_IMPORT | {"PIL", "rich"}
IMPORT_NAMES = {
    "pillow": "PIL",
    "opencv_python_headless": "cv2",
    "mosaicml_streaming": "streaming",
    "nvidia_dali_cuda130": "nvidia",
}
SEEN_BY_THE_CACHE = (Dispatcher, _Intrinsic, int, float, np.generic)
PEERS_FOLDER = "pipeline/benchmarks/peers/"
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


# From the top down: a package may import those before it, never those after it.
ROOMS = (
    "runtime",
    "data",
    "loading",
    "models",
    "recipes",
    "evaluation",
    "analysis",
    "training",
    "reporting",
    "pictures",
    "inspection",
    "export",
    "app",
    "experiments",
    "benchmarks",
)
# The same within pipeline/data, whose packages and modules build on each other.
DATA_ROOMS = (
    "charset",
    "base",
    "inflated",
    "archives",
    "layout",
    "pixels",
    "sources",
    "emnist",
    "splits",
    "pixel_decisions",
    "prepare",
    "synth",
    "download",
    "catalog",
)


def room_of(name: str, prefix: str, rooms: tuple[str, ...]) -> int | None:
    """Place of the room that a dotted module name lies in, None if it lies in none of them."""
    if not name.startswith(prefix):
        return None
    room = name.removeprefix(prefix).split(".")[0]
    return rooms.index(room) if room in rooms else None


def imports_upwards(path: str, tree: ast.Module) -> Iterator[str]:
    """Imports of a room from one that stands before it."""
    name = path.removesuffix(".py").replace("/", ".")
    for prefix, rooms in (("pipeline.", ROOMS), ("pipeline.data.", DATA_ROOMS)):
        own = room_of(name, prefix, rooms)
        for other in imported(tree):
            there = room_of(other, prefix, rooms)
            if own is not None and there is not None and there > own:
                yield other


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
    "pipeline/experiments/command.py alone reads the command line in pipeline": (
        lambda path: (
            path.startswith("pipeline/")
            and path != "pipeline/experiments/command.py"
            and path != "pipeline/runtime/overlay.py"  # a script of launch.sh, without packages
        ),
        never_names("sys.argv", "tyro", "tyro.cli", "argparse", "argparse.ArgumentParser"),
    ),
    "pipeline/training/distributed.py alone knows accelerate's Accelerator": (
        lambda path: (
            path.startswith(("beton/", "pipeline/", "jobs/"))
            and path != "pipeline/training/distributed.py"
        ),
        never_names("accelerate.Accelerator", "Accelerator"),
    ),
    "pipeline/app/page.py alone imports Gradio": (
        lambda path: path != "pipeline/app/page.py",
        never_imports("gradio"),
    ),
    "no conclusion rests on how pictures were drawn": (
        lambda path: (
            path.startswith(("beton/", "pipeline/", "jobs/"))
            and not path.startswith(("pipeline/data/sources/", "pipeline/data/synth/"))
            and path not in ("pipeline/data/base.py", "pipeline/data/prepare.py")  # writes it down
        ),
        never_says("generator"),
    ),
    "jobs do not import each other": (
        lambda path: path.startswith("jobs/"),
        never_imports("jobs", "tests"),
    ),
}


def declared(*extras: str, peers: bool = False) -> set[str]:
    """Names of the packages that pyproject.toml asks for, as they are imported.

    With `peers`, those that benchmarks install on demand too.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    if peers:
        wanted += [name for peer in PEERS.values() for name in peer.requirements]
    names = {re.split(r"[^\w-]", requirement)[0].replace("-", "_") for requirement in wanted}
    return {IMPORT_NAMES.get(name, name) for name in names}


def broken_rules(path: str, tree: ast.Module) -> list[str]:
    broken = [
        f"{path}: {name}, got {offence}"
        for name, (applies, rule) in RULES.items()
        if applies(path)
        for offence in rule(tree)
    ]
    broken += [f"{path}: imports upwards, got {name}" for name in imports_upwards(path, tree)]
    return broken


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


TOPS = ("beton", "pipeline", "jobs")


@cache
def sources() -> dict[str, ast.Module]:
    """Every Python file of the packages, at any depth, parsed."""
    found = [path for top in TOPS for path in (ROOT / top).rglob("*.py")]
    listed = [path for path in tree_files() if path.suffix == ".py"]
    of_packages = [path for path in listed if path.relative_to(ROOT).parts[0] in TOPS]
    assert len(found) >= len(of_packages) > 90
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in found}


def test_imports_run_one_way() -> None:
    trees = sources().items()
    assert [line for path, tree in trees for line in broken_rules(path, tree)] == []


def test_rooms_are_those_that_are_there() -> None:
    packages = {
        path.name for path in (ROOT / "pipeline").iterdir() if (path / "__init__.py").exists()
    }
    assert packages == set(ROOMS)
    files = [path.name for path in (ROOT / "pipeline").iterdir() if path.suffix == ".py"]
    assert sorted(files) == ["__init__.py", "errors.py"]
    data = {path.stem for path in (ROOT / "pipeline/data").iterdir()} - {"__init__", "__pycache__"}
    assert data == set(DATA_ROOMS)
    sizes = Counter(str(Path(path).parent) for path in sources() if "__init__" not in path)
    assert {room: size for room, size in sizes.items() if size > 12} == {}


def imported_files(tree: ast.Module, paths: set[str]) -> set[str]:
    """The files among `paths` that a file imports, wherever the import stands."""
    found = set()
    for name in imported(tree):
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            base = "/".join(parts[:end])
            if path := next((p for p in (f"{base}.py", f"{base}/__init__.py") if p in paths), None):
                found.add(path)
                break
    return found


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """A cycle of a graph, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_files_import_each_other() -> None:
    trees = sources()
    graph = {path: imported_files(tree, {*trees}) - {path} for path, tree in trees.items()}
    assert sum(map(len, graph.values())) > 300
    assert cycle(graph) == []


def test_a_cycle_is_seen() -> None:
    assert cycle({"a.py": {"b.py"}, "b.py": {"c.py"}, "c.py": {"a.py"}})


@pytest.mark.parametrize("room", ["analysis", "training"])
def test_conclusions_and_training_do_without_matplotlib(room: str) -> None:
    modules = [p.stem for p in (ROOT / "pipeline" / room).glob("*.py") if p.stem != "__init__"]
    lines = [f"import pipeline.{room}.{module}" for module in modules]
    script = "\n".join(["import sys", *lines, "assert 'matplotlib' not in sys.modules"])
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True)
    assert run.returncode == 0, run.stderr


def test_what_is_imported_is_declared() -> None:
    own = {"beton", "pipeline", "jobs", *sys.stdlib_module_names}
    undeclared = {
        f"{path}: {name}"
        for top, extras in {
            "beton": [],
            "pipeline": ["app", "explain", "export"],
            "jobs": ["bench", "ffcv"],
        }.items()
        for path, tree in sources().items()
        if path.startswith(f"{top}/")
        for name in only_imports(own | declared(*extras, peers=path.startswith(PEERS_FOLDER)))(tree)
    }
    assert undeclared == set()


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("beton/loader.py", "import torch"),
        ("beton/loader.py", "def f():\n    from pipeline.training import trainer"),
        ("beton/reader.py", "from rich.table import Table"),
        ("beton/__main__.py", "import torch.nn"),
        ("beton/rng.py", "import os\nseed = os.environ['SEED']"),
        ("beton/rng.py", "from os import environ\nfrom pipeline import recipe"),
        ("beton/writer.py", "print('written')"),
        ("pipeline/data/prepare.py", "import jobs.prep"),
        ("pipeline/data/prepare.py", "import sys\npath = sys.argv[1]"),
        ("pipeline/data/sources/idx.py", "import tyro"),
        ("pipeline/experiments/study.py", "import tyro"),
        ("pipeline/app/server.py", "import gradio as gr"),
        ("pipeline/reporting/console.py", "from accelerate import Accelerator"),
        ("pipeline/reporting/console.py", "import accelerate\na = accelerate.Accelerator()"),
        ("pipeline/runtime/files.py", "from pipeline.data.prepare import prepare"),
        ("pipeline/training/runner.py", "from pipeline.reporting import console"),
        ("pipeline/data/base.py", "from pipeline.data.synth import handwriting"),
        ("pipeline/data/synth/handwriting.py", "from pipeline.data import catalog"),
        ("jobs/part1.py", "from jobs.prep import main"),
        ("pipeline/reporting/console.py", "kind = file.info['generator']['mislabelling']"),
        ("jobs/evaluate.py", "kind = reader.info.get('generator', {})"),
        ("pipeline/training/trainer.py", "kind = source.generator"),
    ],
)
def test_a_broken_rule_is_seen(path: str, source: str) -> None:
    assert broken_rules(path, ast.parse(source))


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
        and any(ast.unparse(one) in ("kernel", "inlined") for one in node.decorator_list)
    ]


def unseen_by_the_cache(tree: ast.Module) -> Iterator[str]:
    """What kernels use of our own other files and a cached kernel would not see change."""
    foreign = {
        name.asname or name.name: (node.module, name.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] in ("beton", "pipeline")
        for name in node.names
    }
    for function in kernels_of(tree):
        for name in used(ast.Module(function.body, [])):
            first = name.split(".")[0]
            if first not in foreign:
                continue
            module, own = foreign[first]
            value = getattr(importlib.import_module(str(module)), own, None)
            if not isinstance(value, SEEN_BY_THE_CACHE):
                yield name


def test_kernels_use_of_another_file_only_what_the_cache_sees() -> None:
    trees = sources().values()
    assert sum(len(kernels_of(tree)) for tree in trees) > 10
    assert [name for tree in trees for name in unseen_by_the_cache(tree)] == []


@pytest.mark.parametrize(
    ("line", "unseen"),
    [
        ("from beton.codec import ink; ink.unpack", ["ink.unpack", "ink"]),
        ("from beton.codec.scaled_jpeg.idct import PLACES; PLACES", ["PLACES"]),
        ("from beton.codec.area import resize; resize", []),
        ("from beton.codec.vectors import LANES; LANES", []),
        ("from beton.codec.vectors import load; load", []),
    ],
)
def test_a_kernel_that_uses_another_file_is_caught(line: str, unseen: list[str]) -> None:
    statement, name = line.split("; ")
    text = f"{statement}\n@kernel\ndef f(x):\n    return {name}(x)\n"
    assert list(unseen_by_the_cache(ast.parse(text))) == unseen
