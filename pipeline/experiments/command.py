"""What the commands share: parsing options, opening data, resuming, exit statuses.

The only module of `pipeline` that reads the command line.
"""

import io
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from beton.errors import printable
from beton.format.storage import naming
from beton.reader import Reader
from pipeline.data.prepare import BadImagesError
from pipeline.data.sources import SourceError
from pipeline.errors import UserError
from pipeline.evaluation.run_config import ExperimentConfig, RunConfig
from pipeline.evaluation.run_data import moved_paths
from pipeline.experiments.options import OPTIONS, Options, job_of
from pipeline.loading.dataset import open_dataset, split_indices
from pipeline.runtime import launch
from pipeline.runtime.files import convert, read_as, read_json
from pipeline.runtime.hardware import Precision
from pipeline.runtime.signals import Terminated, drop_output, raising_signals, with_notes

C = TypeVar("C")
K = TypeVar("K", RunConfig, ExperimentConfig)
REGISTRY = ConstructorRegistry()
CLOSED_OUTPUT = 128 + signal.SIGPIPE
RESUME_OPTIONS = (
    "runs",
    "resume",
    "decode",
    "precision",
    "track",
    "watch",
    "jobs",
)  # that go with --resume
DATASETS = ("digits", "mnist", "data", "test", "clean")  # of the jobs of several trainings


def main(name: str, options: type[C], run: Callable[[C], None], *flags: Any) -> int:
    """Run a command with its parsed options, as `runtime.launch.run_job` does.

    Returns the exit status. `flags` are those of `parse`.
    """
    return call(name, lambda: run(parse(options, *flags)))


def call(name: str, run: Callable[[], None]) -> int:
    """Run a command that parses its options itself, as `main` does.

    If the reader of its output is gone, the command ends without a word, with status 141.
    """

    def job() -> None:
        try:
            with raising_signals(), _closed_output_exits():
                run()
        except BadImagesError as error:
            for image, reason in error.bad:
                print(printable(f"{image}: {reason}"), file=sys.stderr)
            raise UserError(str(error)) from error
        except (SourceError, BrokenExecutor) as error:
            raise UserError(str(error)) from error
        except RuntimeError as error:
            if "gloo" not in str(error) and not isinstance(error, torch.distributed.DistError):
                raise
            raise UserError("lost the connection to another process of the launch") from error

    launch.set_up_streams()
    try:
        status = launch.run_job(name, job)
    except Terminated as stop:
        launch.print_error(with_notes(f"{name}: {stop}", stop))
        status = 128 + stop.signal
    except SystemExit as done:
        launch.leave_group(done.code if isinstance(done.code, int) else 1)
        raise
    launch.leave_group(status)
    return status


@contextmanager
def _closed_output_exits() -> Iterator[None]:
    """Exit without a word if nothing reads the standard output any more, as of `command | head`.

    Name the standard output in the error of one that is a file on a full disk.
    """
    try:
        yield
        print(end="", flush=True)
    except BaseException as error:
        poll = select.poll()
        poll.register(1, 0)
        if any(events & select.POLLERR for _, events in poll.poll(0)):
            drop_output(1)  # Python flushes the output at its exit
            succeeded = isinstance(error, SystemExit) and not error.code  # --help
            if succeeded or isinstance(error, BrokenPipeError):
                sys.exit(CLOSED_OUTPUT)
        with naming("standard output"):  # other files are named where they are written
            try:
                print(end="", flush=True)
            except OSError:
                drop_output(1)
            raise


def parse(options: type[C], *flags: Any, words: Sequence[str] | None = None) -> C:
    """Return the options of the command line as a dataclass; `flags` are tyro's (`tyro.conf`).

    `words` are parsed in place of the command line.

    A relative path is one in the folder from which the user called `launch.sh`. A path without an
    option's name may also be one in the checkout, such as runs/part1/latest. In all of them, ~ is
    the user's home: a shell leaves that of --source=~/x.zip as it is. Default values stay as they
    are. Only the main process prints help and mistakes.
    """
    prints = launch.is_main()
    with nullcontext() if prints else redirect_stderr(io.StringIO()):
        return tyro.cli(
            options, args=words, config=flags, registry=REGISTRY, console_outputs=prints
        )


def arguments() -> list[str]:
    """Return the words of the command line after the command."""
    return sys.argv[1:]


def parse_known(options: type[C], words: Sequence[str], *flags: Any) -> tuple[C, list[str]]:
    """Return the options that `options` has among the words of a command line, and the others."""
    return tyro.cli(options, args=words, config=flags, registry=REGISTRY, return_unknown_args=True)


def parse_named(config: type[C], *flags: Any) -> tuple[C, str, Options]:
    """Return the options of a command on NAME, the job of NAME, and the job's options.

    NAME, the first word, is a job that trains one network, or a dataset, as for `train`. Words that
    `config` has no option for are those of the job. Raises UserError without NAME, for a job of
    several trainings, and for a dataset that is given twice.
    """
    given = arguments()
    name = given.pop(0) if given and not given[0].startswith("-") else ""
    parsed, words = parse_known(config, given, *flags)
    if not name:
        raise UserError("name: got none, expected a job or a dataset as the first word")
    job, data = job_of(name)
    options = parse(OPTIONS[job], *flags, words=words)
    if data is not None:
        if options.data is not None:
            raise UserError(f"data: got {options.data} for the dataset {name}")
        options = replace(options, data=data)
    return parsed, job, options


@REGISTRY.primitive_rule
def _path(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    if info.type is not Path:
        return None
    positional = tyro.conf.Positional in info.markers

    def resolve(words: list[str]) -> Path:
        try:
            given = Path(words[0]).expanduser()
        except RuntimeError as error:  # ~name without such a user
            raise ValueError(f"{words[0]}: {error}") from error
        path = launch.caller_folder() / given
        return given if positional and not path.exists() else path

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=resolve,
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def options_of(config: object) -> dict[str, Any]:
    """Return a command's options as JSON values."""
    values: dict[str, Any] = msgspec.to_builtins(config, enc_hook=str)
    return values


def saved_config(config: object, run: Path, job: str, kind: type[K]) -> K:
    """Return the config.json of a run directory to resume, of one training or of several.

    Raises UserError if other options than `RESUME_OPTIONS` are given, and for a run directory of
    another job or kind.
    """
    defaults = options_of(type(config)())
    for name, value in options_of(config).items():
        if name not in RESUME_OPTIONS and value != defaults[name]:
            raise UserError(f"{name}: a resumed run has its own options; leave it out")
    written = read_json(run, "config.json")
    if written.get("job") != job:
        raise UserError(f"{run}: got a run directory of {written.get('job')}, expected {job}")
    if kind is ExperimentConfig and "recipe" in written:
        raise UserError(f"{run}: got one training of {job}, expected the whole run directory")
    return read_as(run / "config.json", kind)


def resumed_precision(given: Precision, saved: RunConfig, run: Path) -> Precision:
    """Return the precision to resume a run in: the given one, or if that is "auto" the run's own.

    Raises UserError for a damaged config.json.
    """
    if given != "auto":
        return given
    try:
        precision: Precision = msgspec.convert(saved.options.get("precision", given), Precision)
    except msgspec.ValidationError as error:
        raise UserError(f"{run / 'config.json'}: damaged: precision: {error}") from error
    return precision


def resumed(config: C, run: Path, job: str) -> C:
    """Return the options saved in a run directory of several trainings, to resume it.

    Options that may be given beside --resume replace the saved ones, unless they have their default
    values. Datasets are where they are now. Raises UserError as `saved_config` and `moved_paths`
    do.
    """
    moved = {name: path for name in DATASETS if (path := getattr(config, name, None)) is not None}
    others: Any = config
    others = replace(others, **dict.fromkeys(moved))
    written = saved_config(others, run, job, ExperimentConfig)
    saved = written.options | moved_paths(run, written.options, written.datasets, moved)
    given = {name: value for name, value in options_of(config).items() if name in RESUME_OPTIONS}
    for name in ("decode", "precision", "watch", "jobs"):
        if given[name] in ("auto", False, None):
            del given[name]
    try:
        return convert({**saved, **given}, type(config))
    except ValueError as error:
        raise UserError(f"{run / 'config.json'}: damaged: {error}") from error


def check_trial(config: object, *own: str) -> None:
    """Raise UserError for a trial with options that it sets itself, named in `own`."""
    given = options_of(config)
    for name in own:
        if given["trial"] and given[name] is not None:
            raise UserError(f"trial: got {name} too, expected one of them: a trial has its own")


def open_data(path: Path, prep: str | None = None) -> Reader:
    """Open a dataset. If it is missing, raise UserError with the command that makes it.

    `prep` are the command's arguments, by default the file's name without its suffix.
    """
    if not path.exists():
        raise UserError(f"{path} is not there; make it: ./launch.sh prep {prep or path.stem}")
    return open_dataset(path)


def check_classes(name: str, file: Reader, expected: Reader) -> None:
    """Raise UserError, which names the option `name`, if two datasets have different classes."""
    got, wanted = file.info["classes"], expected.info["classes"]
    if got != wanted:
        raise UserError(
            f"{name}: {file.path} has the classes {', '.join(got)}; expected those of "
            f"{expected.path}: {', '.join(wanted)}"
        )


def evaluation_split(name: str, file: Reader) -> str:
    """Return the split of a dataset to test on: "test", or "validation" if it has no test split.

    Raises UserError, which names the option `name`, for a dataset that has neither.
    """
    for split in ("test", "validation"):
        if len(split_indices(file, split)):
            return split
    raise UserError(f"{name}: {file.path} has neither a test nor a validation split")
