"""Commands whose output goes to a reader that leaves, such as `head`: no word, status 141."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import forked
import pytest
from trained_runs import ink_run

from jobs import evaluate
from pipeline.errors import UserError
from pipeline.experiments import command
from pipeline.runtime.progress import make_console


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ink_run(tmp_path_factory.mktemp("run"))


def print_lines() -> None:
    for number in range(10**5):
        print(number)


def print_rich_lines() -> None:
    for number in range(1000):
        make_console().print(number)


def print_and_fail() -> None:
    print("a line that stays in the buffer")
    raise UserError("why")


def show_help() -> None:
    command.parse(Config, words=["--help"])


def write_elsewhere() -> None:
    read, write = os.pipe()
    os.close(read)
    os.write(write, b"1")


@dataclass
class Config:
    """Options."""


def evaluate_run(words: Sequence[str]) -> int:
    sys.argv = ["evaluate.py", *words]
    return evaluate.main()


def call(job: Callable[[], int], output: str, place: Path) -> None:
    """Run a command whose output is gone ("closed"), there ("open") or no file at all ("none")."""
    read, write = os.pipe()
    os.dup2(write, 1)
    os.close(write)
    if output == "closed":
        os.close(read)
    elif output == "none":
        os.close(1)
    sys.stdout = None if output == "none" else open(1, "w", closefd=False)  # noqa: SIM115
    errors = os.open(place, os.O_WRONLY | os.O_CREAT)
    os.dup2(errors, 2)
    sys.exit(job())


@pytest.mark.parametrize(
    ("work", "output", "status", "line"),
    [
        (print_lines, "closed", 141, ""),
        (print_lines, "none", 0, ""),
        (print_rich_lines, "closed", 141, ""),
        (print_rich_lines, "none", 0, ""),
        (print_and_fail, "closed", 2, "work: why\n"),
        (show_help, "closed", 141, ""),
        (show_help, "open", 0, ""),
        (write_elsewhere, "open", 2, "work: [Errno 32] Broken pipe\n"),
    ],
)
def test_only_a_closed_output_is_one(
    work: Callable[[], None], output: str, status: int, line: str, tmp_path: Path
) -> None:
    assert ended(partial(command.call, "work", work), output, tmp_path) == (status, line)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["tables", "json"])
def test_evaluate_ends_without_a_word(options: list[str], run: Path, tmp_path: Path) -> None:
    words = [str(run), "--source", str(run.parent / "tiny.beton"), *options]
    assert ended(partial(evaluate_run, words), "closed", tmp_path) == (141, "")
    assert ended(partial(evaluate_run, words), "none", tmp_path) == (0, "")


def ended(job: Callable[[], int], output: str, folder: Path) -> tuple[int | None, str]:
    """Return the status and the errors of a command in a process of its own."""
    errors = folder / "errors"
    process = forked.CONTEXT.Process(target=call, args=(job, output, errors))
    process.start()
    process.join()
    return process.exitcode, errors.read_text()
