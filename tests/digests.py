"""Record what the commands make, to see that a change of structure changed nothing.

    python tests/digests.py record before.json --sample pages.zip --work before
    python tests/digests.py record after.json --sample pages.zip --work after
    python tests/digests.py compare before.json after.json

`record` prepares data, trains and evaluates by the commands of `--checkout` with one thread. It
writes sha256 digests of prepared files, of the first batch of every op, of weights after 20 steps
of every recipe's first stage, of the weights of a short part 1, 2 and 3, and their figures, times
and sentences left out. `compare` prints what differs and exits with 1 if anything does. The pages
are a zip of the MIDAS shape. It takes some minutes.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
STEPS = 20
RECIPES = {"fast": 32, "accurate": 32, "progressive": 4, "baseline": 4}  # and rows of a batch
TIMES = ("seconds", "images_per_second", "loader_share", "times")
SENTENCES = ("words", "answer", "verdict", "assumption", "left_out", "measure", "name")
PATHS = ("file", "witness", "via")

BATCHES = """
import hashlib, json, sys
from pathlib import Path
from beton import ops
from beton.loader import Loader
from beton.reader import Reader
Draw = dict(scale=(0.8, 1.2), aspect=(0.9, 1.1), translate=(0.1, 0.1), shear=0.2)
found = {}
for path in map(Path, sys.argv[1:]):
    with Reader(path) as file:
        plain = {name: ops.default(file.column(name)) for name in file.fields}
        inks = [name for name in file.fields if type(file.fields[name]).__name__ == "InkField"]
        cases = {"default": plain}
        for ink in inks:
            cases["resize"] = {ink: ops.Resize(20, 30)}
            cases["jitter"] = {ink: ops.Resize(20, 30, ops.Jitter(**Draw), ops.Normalize(9, 50))}
            cases["runs"] = {ink: ops.Runs()}
            cases["jittered runs"] = {ink: ops.Runs(ops.Jitter(**Draw))}
        rows = min(len(file), 16)
    for case, chosen in cases.items():
        try:
            with Loader(path, rows, chosen, order="shuffled", seed=3) as loader:
                batch = next(iter(loader))
                digest = hashlib.sha256()
                for name in sorted(batch.arrays):
                    array = batch.arrays[name]
                    if name in inks and "runs" in case:
                        array = array[: int(batch.arrays[name + ".offsets"][-1])]
                    digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
            found[f"batch {path.name} {case}"] = digest.hexdigest()
        except ValueError as error:  # pages of several sizes do not share a batch as they are
            found[f"batch {path.name} {case}"] = type(error).__name__
print(json.dumps(found))
"""

SMALL_IDX = """
import struct, sys
from pathlib import Path
import numpy as np
from beton.reader import Reader
out = Path(sys.argv[2])
out.mkdir(parents=True)
with Reader(Path(sys.argv[1])) as file:
    splits, labels = (file.column(name).metadata for name in ("split", "label"))
    for prefix, split, count in (("train", 0, 1500), ("t10k", 2, 300)):
        ids = np.flatnonzero(splits == split)[:count]
        images = np.stack([file.column("image").decode(int(i)) for i in ids])
        head = struct.pack(">IIII", 0x803, *images.shape)
        (out / f"{prefix}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = struct.pack(">II", 0x801, len(ids))
        text = labels[ids].astype(np.uint8).tobytes()
        (out / f"{prefix}-labels-idx1-ubyte").write_bytes(head + text)
"""


@dataclass(frozen=True)
class Record:
    """Record what the commands of a checkout make."""

    out: tyro.conf.Positional[Path]
    """The JSON file to write."""
    sample: Path
    """Pages in the shape of MIDAS part 1."""
    work: Path
    """A new folder for data and run directories, which stay."""
    checkout: Path = ROOT
    """The checkout whose commands are run."""


@dataclass(frozen=True)
class Compare:
    """Compare two recordings."""

    before: tyro.conf.Positional[Path]
    after: tyro.conf.Positional[Path]


@dataclass(frozen=True)
class Commands:
    """Runs a checkout's commands in a folder, with one thread."""

    checkout: Path
    work: Path

    def environment(self) -> dict[str, str]:
        others = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.checkout)}
        return {**os.environ, **others}

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.work,
            env=self.environment(),
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)[:200]}: {done.returncode}\n{done.stderr[-2000:]}")
        return done.stdout

    def job(self, name: str, *options: str) -> str:
        print(f"{time.strftime('%H:%M:%S')} {name} {' '.join(options)}", flush=True)
        return self.run(str(self.checkout / "jobs" / f"{name}.py"), *options)

    def latest(self, runs: str, part: str) -> Path:
        return (self.work / runs / part / "latest").resolve()

    def interrupted(self, recipe: str, rows: int) -> Path:
        """Train by a recipe; kill the training after its checkpoint of step 20, and return that."""
        runs = self.work / "interrupted" / recipe
        options = ["--data", "data/part1.beton", "--runs", str(runs), "--recipe", recipe]
        options += ["--batch-size", str(rows), "--checkpoint-steps", str(STEPS), "--keep", "99"]
        print(f"{time.strftime('%H:%M:%S')} {recipe}, {STEPS} steps", flush=True)
        job = subprocess.Popen(
            [sys.executable, str(self.checkout / "jobs" / "part1.py"), *options],
            cwd=self.work,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
        )
        pattern = f"part1/*/checkpoints/step-{STEPS:08d}"
        while not (found := [*runs.glob(pattern)]):
            if job.poll() is not None:
                raise SystemExit(f"{recipe}: ended with {job.returncode} before step {STEPS}")
            time.sleep(0.1)
        job.send_signal(signal.SIGKILL)
        job.wait()
        return found[0]


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights_of(path: Path) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def figures(value: object, name: str) -> Iterator[tuple[str, object]]:
    """Yield what a result holds by dotted names, without times, sentences and paths."""
    match value:
        case dict():
            for key, one in value.items():
                if key.startswith(TIMES) or key in (*SENTENCES, *PATHS, "accuracy over seconds"):
                    continue
                yield from figures(one, f"{name}.{key}")
        case list():
            for number, one in enumerate(value):
                yield from figures(one, f"{name}.{number}")
        case _:
            yield name, value


def record(options: Record) -> None:
    """Run everything and write the recording."""
    work = options.work.resolve()
    work.mkdir(parents=True)
    sample = str(options.sample.resolve())
    commands = Commands(options.checkout.resolve(), work)
    found: dict[str, Any] = {}

    few = ("--auxiliary-writers", "3")
    commands.job("prep", "part1", "--source", sample, *few)
    commands.job("prep", "part1", "--synthetic", "--writers", "4", *few, "--out", "drawn")
    commands.job("prep", "part3", "mnist", "--synthetic", "--out", "drawn")
    commands.run("-c", SMALL_IDX, "drawn/mnist.beton", "idx")
    commands.job("prep", "mnist", "--source", "idx", "--out", "small")
    commands.job("prep", "part3", "--source", "idx", "--mislabel", "wrong", "--out", "small")
    commands.job("prep", "part2", "--source", sample, "--out", "small")
    for path in sorted(work.glob("*/*.beton")):
        found[f"file {path.relative_to(work)}"] = digest_of(path)

    golden = sorted((options.checkout / "tests" / "golden").glob("*.beton"))
    paths = [*map(str, golden), str(work / "data" / "part1.beton"), str(work / "small/mnist.beton")]
    found |= json.loads(commands.run("-c", BATCHES, *paths))

    for recipe, rows in RECIPES.items():
        checkpoint = commands.interrupted(recipe, rows)
        found[f"weights {recipe} {STEPS} steps"] = weights_of(checkpoint / "model.safetensors")

    commands.job("part1", "--data", "drawn/part1.beton", "--epochs", "2", "--size", "32")
    small = ("--digits", "small/part2.beton", "--mnist", "small/mnist.beton")
    commands.job("part2", *small, "--seeds", "2", "--epochs", "2", "--digits-epochs", "2")
    part3 = ("--data", "small/part3.beton", "--test", "small/mnist.beton", "--seeds", "1")
    commands.job("part3", *part3, "--epochs", "1")
    commands.job("report")
    for part in ("part1", "part2", "part3"):
        run = commands.latest("runs", part)
        for path in sorted(run.rglob("result.json")):
            name = str(path.parent.relative_to(run.parent)).replace(run.name, part)
            found |= dict(figures(json.loads(path.read_text()), f"result {name}"))
        for path in sorted(run.rglob("model.safetensors")):
            if "checkpoints" not in path.parts:
                name = str(path.parent.relative_to(run.parent)).replace(run.name, part)
                found[f"weights {name}"] = weights_of(path)
    scores = commands.job("evaluate", "runs/part1/latest", "--source", sample, "--json")
    found |= dict(figures(json.loads(scores), "evaluation"))

    options.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(f"{len(found)} figures; sha256 of {options.out}: {digest_of(options.out)}")


def compare(options: Compare) -> None:
    """Print what differs. Exit with 1 if anything does."""
    before, after = (json.loads(p.read_text()) for p in (options.before, options.after))
    names = sorted(before.keys() | after.keys())
    different = [name for name in names if before.get(name) != after.get(name)]
    for name in different:
        print(f"{name}: {before.get(name)} before, {after.get(name)} after")
    print(f"{len(names) - len(different)} equal, {len(different)} different")
    for path in (options.before, options.after):
        print(f"sha256 of {path}: {digest_of(path)}")
    if different:
        sys.exit(1)


def main() -> None:
    """Run the command."""
    subcommand = tyro.conf.subcommand
    options: Record | Compare = tyro.cli(
        Annotated[Record, subcommand("record")] | Annotated[Compare, subcommand("compare")]
    )
    record(options) if isinstance(options, Record) else compare(options)


if __name__ == "__main__":
    main()
