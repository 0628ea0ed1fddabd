"""Outputs of commands that take no words: a reader that leaves, a full disk, an old encoding.

Real: pipes without a reader, the device /dev/full. A reader that leaves, such as `head`, means no
word and status 141.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import forked
import pytest
import torch
from tiny import page, write_set
from trained_runs import NAMES, ink_run

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


def fail_without_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee the manual.")


def fail_in_python() -> None:
    raise MemoryError


def fail_without_threads() -> None:
    raise RuntimeError("can't start new thread")


def open_a_file() -> None:
    raise UserError(f"a file has the number of stdout: {os.open(os.devnull, os.O_RDONLY) == 1}")


def print_names() -> None:
    print("é")
    make_console().print("é 日")


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
    """Run a command whose output is gone ("closed"), there ("open") or no file at all ("none").

    Or a file: with the errors ("ascii", in this encoding), on a full disk ("full"), or on such a
    disk with the errors ("all full").
    """
    read, write = os.pipe()
    errors = os.open(place, os.O_WRONLY | os.O_CREAT)
    if "full" in output:
        write = os.open("/dev/full", os.O_WRONLY)
    os.dup2(errors if output == "ascii" else write, 1)
    os.dup2(write if output == "all full" else errors, 2)
    os.close(write)
    if output == "closed":
        os.close(read)
    elif output == "none":
        os.close(1)
    encoding = "ascii" if output == "ascii" else "utf-8"
    sys.stdout = None if output == "none" else open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
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
        (print_lines, "full", 2, "work: standard output: No space left on device\n"),
        (print_rich_lines, "full", 2, "work: standard output: No space left on device\n"),
        (print_lines, "all full", 2, ""),
        (print_and_fail, "all full", 2, ""),
        (open_a_file, "none", 2, "work: a file has the number of stdout: False\n"),
        (print_names, "ascii", 0, "\\xe9\n\\xe9 \\u65e5\n"),
        (
            fail_without_memory,
            "open",
            2,
            "work: memory is full: CUDA out of memory. Tried to allocate 2 GiB.; smaller batches "
            "or images need less\n",
        ),
        (fail_in_python, "open", 2, "work: memory is full; smaller batches or images need less\n"),
        (fail_without_threads, "open", 2, "work: can't start new thread\n"),
    ],
)
def test_an_output_or_a_system_without_room_ends_in_a_line(
    work: Callable[[], None], output: str, status: int, line: str, tmp_path: Path
) -> None:
    assert ended(partial(command.call, "work", work), output, tmp_path) == (status, line)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["tables", "json"])
def test_evaluate_ends_without_a_word(options: list[str], run: Path, tmp_path: Path) -> None:
    words = [str(run), "--source", str(run.parent / "tiny.beton"), *options]
    assert ended(partial(evaluate_run, words), "closed", tmp_path) == (141, "")
    assert ended(partial(evaluate_run, words), "none", tmp_path) == (0, "")


def test_json_has_all_characters_in_every_encoding(run: Path, tmp_path: Path) -> None:
    data = write_set(
        tmp_path / "named.beton",
        classes=NAMES,
        draw=lambda _name, number: page("1", number),
        info={"provenance": {"kind": "synthetic", "source": "é", "digest": "sha256:é"}},
    )
    words = [str(run), "--source", str(data), "--json"]
    status, printed = ended(partial(evaluate_run, words), "ascii", tmp_path)
    assert (status, json.loads(printed)["provenance"]["source"]) == (0, "é")


def ended(job: Callable[[], int], output: str, folder: Path) -> tuple[int | None, str]:
    """Return the status and the errors of a command in a process of its own."""
    errors = folder / "errors"
    process = forked.CONTEXT.Process(target=call, args=(job, output, errors))
    process.start()
    process.join()
    return process.exitcode, errors.read_text()
