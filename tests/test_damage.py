"""Randomly damaged files: a reader raises BetonError or returns values, and nothing else happens.

    python tests/test_damage.py --cases 20000 --seed 1 [--manifest]

runs many cases and prints the outcomes; with --manifest, only those of files with a manifest. A
case is a function of its seed and number, so `--first N --cases 1` repeats it. The test runs the
cases in a separate process: a crash or a hang is a failure that names its case.
"""

import argparse
import faulthandler
import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from every_field import parts, same, without_manifest, write_every_field

from beton import ops
from beton.errors import BetonError
from beton.format import layout
from beton.format.manifest import HEAD, Manifest
from beton.loader import Loader
from beton.reader import Reader

Random = np.random.Generator
Samples = list[dict[str, Any]]

SAMPLES = 12
SEALED = ("sealed", "sealed again")  # a file with a manifest; one whose checksums were corrected
SECONDS = 60  # time limit of a case
MEMORY = 8 << 30  # limit of the address space: an allocation of a damaged size fails
EXTREMES = [
    0,
    1,
    2,
    255,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53,
    2**63 - 1,
    2**63,
    2**64 - 1,
]


@dataclass(frozen=True)
class Sound:
    """An undamaged file and the positions of its parts."""

    data: bytes
    spans: dict[str, tuple[int, int]]
    numbers: list[list[tuple[int, int]]]  # columns of numbers of one kind: (offset, size)
    values: Samples


def take_apart(data: bytes, values: Samples) -> Sound:
    found = parts(data)
    head = layout.HEADER.itemsize
    metadata = head + len(found.fields) * layout.DESCRIPTOR.itemsize
    end = found.manifest[0] if found.manifest else found.table_start
    spans = {
        "header": (0, head),
        "descriptors": (head, metadata),
        "metadata": (metadata, metadata + found.metadata.nbytes),
        "payload": (found.data_start, found.data_end),
        "rest": (end, len(data)),
    }
    numbers = [[(at, size)] for at, size in _members(layout.HEADER)]
    numbers += [
        [(metadata + i * found.metadata.itemsize + at, size) for i in range(len(found.metadata))]
        for at, size in _members(found.metadata.dtype)
    ]
    numbers += [
        [(row + at, 8) for row in range(found.table_start, len(data), layout.ALLOCATION.itemsize)]
        for at, _ in _members(layout.ALLOCATION)
    ]
    return Sound(data, spans, numbers, values)


def _members(dtype: np.dtype[Any], base: int = 0) -> Iterator[tuple[int, int]]:
    if dtype.fields is None:
        yield base, dtype.itemsize
        return
    for member, offset, *_ in dtype.fields.values():
        yield from _members(member, base + offset)


# Kinds of damage: each function changes `data` in place.


def place(random: Random, sound: Sound) -> int:
    """Choose a byte, more often of the payload than of the other parts."""
    low, high = sound.spans[str(random.choice([*sound.spans, "payload", "payload"]))]
    return int(random.integers(low, high))


def flip_a_bit(random: Random, data: bytearray, sound: Sound) -> None:
    data[place(random, sound)] ^= 1 << int(random.integers(8))


def flip_bits_nearby(random: Random, data: bytearray, sound: Sound) -> None:
    at = place(random, sound)
    for _ in range(random.integers(2, 20)):
        data[(at + int(random.integers(64))) % len(data)] ^= 1 << int(random.integers(8))


def set_numbers(random: Random, data: bytearray, sound: Sound) -> None:
    for _ in range(random.integers(1, 4)):
        column = sound.numbers[random.integers(len(sound.numbers))]
        at, size = column[random.integers(len(column))]
        number = int.from_bytes(data[at : at + size], "little")
        near = number + int(random.choice([-24, -8, -1, 1, 8, 24, 4096]))
        value = int(random.choice(np.array([*EXTREMES, near, len(data), 2 * number], object)))
        data[at : at + size] = (value % 256**size).to_bytes(size, "little")


def swap_numbers(random: Random, data: bytearray, sound: Sound) -> None:
    column = sound.numbers[random.integers(len(sound.numbers))]
    (a, size), (b, _) = (column[i] for i in random.integers(len(column), size=2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def copy_bytes(random: Random, data: bytearray, sound: Sound) -> None:
    size = int(random.choice([24, 64, 300, 1041]))
    source, target = place(random, sound), place(random, sound)
    chunk = data[source : source + size]
    data[target : target + len(chunk)] = chunk[: len(data) - target]


def fill_bytes(random: Random, data: bytearray, sound: Sound) -> None:
    at, size = place(random, sound), int(random.integers(1, 64))
    size = min(size, len(data) - at)
    fill: list[bytes] = [bytes(size), b"\xff" * size, random.bytes(size)]
    data[at : at + size] = fill[random.integers(3)]


def change_type(random: Random, data: bytearray, sound: Sound) -> None:
    low, high = sound.spans["descriptors"]
    count = (high - low) // layout.DESCRIPTOR.itemsize
    at = low + int(random.integers(count)) * layout.DESCRIPTOR.itemsize
    data[at] = int(random.choice([0, 1, 2, 3, 4, 5, 6, 7, 255]))


def truncate(random: Random, data: bytearray, sound: Sound) -> None:
    ends = [at for span in sound.spans.values() for at in span]
    near = int(random.choice(ends)) - int(random.integers(3)) * 8
    del data[int(random.choice([near, int(random.integers(len(data)))])) :]


def extend(random: Random, data: bytearray, _: Sound) -> None:
    data += random.bytes(int(random.choice([1, 8, 24, 48, 4096])))


KINDS: list[Callable[[Random, bytearray, Sound], None]] = [
    flip_a_bit, flip_bits_nearby, set_numbers, swap_numbers, copy_bytes, fill_bytes, change_type,
    truncate, extend,
]  # fmt: skip


def seal(data: bytes, sound: Sound) -> bytes:
    """Correct the checksums, so that only the structure can reveal the damage."""
    found = parts(sound.data)
    assert found.manifest
    start, end = found.manifest
    if len(data) != len(sound.data):
        return data
    if data[start:end] != sound.data[start:end]:  # the damage is in the manifest itself
        head = np.frombuffer(data, HEAD, 1, start).copy()
        head["crc"] = zlib.crc32(data[start + HEAD.itemsize : end])
        return data[:start] + head.tobytes() + data[start + HEAD.itemsize :]
    pages = [
        zlib.crc32(data[at : min(at + found.page_size, found.data_end)])
        for at in range(found.data_start, found.data_end, found.page_size)
    ]
    manifest = replace(
        Manifest.unpack(data[start:end]),
        head=zlib.crc32(data[: found.data_start]),
        table=zlib.crc32(data[found.table_start :]),
        pages=np.array(pages, np.uint32),
    )
    return data[:start] + manifest.pack() + data[end:]


def read(path: Path) -> tuple[str, Samples]:
    """Read a whole file with the reader and all ops; return the outcome and the samples."""
    try:
        reader = Reader(path)
    except BetonError:
        return "rejected at open", []
    rejected = False
    samples: Samples = []
    for i in range(len(reader)):
        try:
            samples.append(reader[i])
        except BetonError:
            rejected = True
    for steps in (None, {"ink": ops.Resize(9, 7)}, {"ink": ops.Runs()}):
        try:
            for batch in Loader(reader, 8, steps, order="sequential", threads=0):
                assert batch.valid.any()
        except BetonError:
            rejected = True
    try:
        reader.verify()
    except BetonError:
        rejected = True
    return "rejected in a sample" if rejected else "read", samples


def run_case(
    seed: int, number: int, kinds: Sequence[str], sound: Sound, bare: Sound, path: Path
) -> str:
    """Damage a file, read it, and return the outcome."""
    random = np.random.default_rng([seed, number])
    kind = kinds[number % len(kinds)]
    base = bare if kind == "bare" else sound
    data = bytearray(base.data)
    damage = KINDS[random.integers(len(KINDS))]
    damage(random, data, base)
    damaged = seal(bytes(data), sound) if kind == "sealed again" else bytes(data)
    path.write_bytes(damaged)
    outcome, samples = read(path)
    # Checksums detect every change; without them, values may differ.
    changed = damaged != base.data
    assert not (changed and kind == "sealed" and outcome == "read"), f"{damage.__name__} unnoticed"
    assert changed or (outcome == "read" and len(samples) == len(base.values))
    if outcome == "read":
        intact = len(samples) == len(base.values) and all(map(same, samples, base.values))
        outcome = "read, as written" if intact else "read, with other values"
    return f"{kind}: {outcome}"


def run_cases(
    seed: int, first: int, cases: int, kinds: Sequence[str], folder: Path
) -> Counter[str]:
    """Run cases; the file `folder`/case has the number of the current case."""
    path = folder / "damaged.beton"
    data = write_every_field(path, SAMPLES)
    with Reader(path) as reader:
        values = [reader[i] for i in range(SAMPLES)]
    read(path)  # compiles the kernels outside of the limits of a case
    sound, bare = take_apart(data, values), take_apart(without_manifest(data), values)
    outcomes: Counter[str] = Counter()
    for number in range(first, first + cases):
        (folder / "case").write_text(str(number))
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        outcomes[run_case(seed, number, kinds, sound, bare, path)] += 1
    faulthandler.cancel_dump_traceback_later()
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--manifest", action="store_true")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        kinds = SEALED if options.manifest else (*SEALED, "bare")
        outcomes = run_cases(options.seed, options.first, options.cases, kinds, folder)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(dict(sorted(outcomes.items())), indent=1))
    print(
        f"{sum(outcomes.values())} cases, {time.monotonic() - started:.0f} s, {memory >> 10} MiB",
        file=sys.stderr,
    )


def test_damaged_files_are_rejected_or_read(tmp_path: Path) -> None:
    command = [sys.executable, __file__, "--cases", "1500", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    case = (tmp_path / "case").read_text() if (tmp_path / "case").exists() else "none"
    assert done.returncode == 0, f"case {case}: {done.stderr}"
    outcomes = json.loads(done.stdout)
    assert sum(outcomes.values()) == 1500
    # The cases reach every outcome.
    for kind in (*SEALED, "bare"):
        assert outcomes[f"{kind}: rejected at open"] > 150
        assert outcomes[f"{kind}: rejected in a sample"] > 5
    assert outcomes["bare: read, with other values"] > 5


if __name__ == "__main__":
    main()
