"""Manifests of other shapes: a dataset is refused in one line, or used; nothing else happens.

    python tests/test_damaged_manifest.py --cases 10000 --seed 1

runs many cases. A case is a function of its seed and number, so `--first N --cases 1` repeats it.
All checksums are correct: such files are of another program, or of a stranger.
"""

import argparse
import contextlib
import copy
import io
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from raw_data import folders, make_tree, saved
from tiny_colours import image

from beton import writer
from beton.__main__ import main as beton_command
from beton.errors import BetonError
from beton.reader import Reader
from pipeline.data.pixels.options import PixelOptions
from pipeline.data.prepare import prepare
from pipeline.data.sources import SourceError, open_source
from pipeline.errors import UserError
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import View, channel_statistics, open_dataset, source_line
from pipeline.reporting.data_card import write_card

PIXELS = {"grey": PixelOptions(), "colour": PixelOptions(colour="rgb")}  # by source
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, 1e308, -1e308, 0.5, "", "x", "\x1b[31m\n", [], [[]], {},
    {"": {}}, ["a", "a"], [0, 300], [1, 2, 3], [[0, 1], [2, 3]], "rgb", "grey", "crop", "letterbox",
    "stretch", "each", "dark", [1e308, -1e308], ["a", None], "a" * 10_000,
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all entries of a JSON value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in entries:
        yield (*path, key)
        if isinstance(entry, dict | list):
            yield from places(entry, (*path, key))


def mutate(chance: random.Random, info: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with one to three entries replaced, removed, repeated or exchanged."""
    info = copy.deepcopy(info)
    for _ in range(chance.randint(1, 3)):
        found = list(places(info))
        *above, key = chance.choice(found)
        parent: Any = info
        for step in above:
            parent = parent[step]
        other: Any = info
        for step in chance.choice(found):
            other = other[step]
        match chance.randrange(5):
            case 0:
                del parent[key]
            case 1:
                parent[key] = copy.deepcopy(other)
            case 2 if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            case _:
                parent[key] = copy.deepcopy(chance.choice(ODD))
    return info


def use(path: Path, source: Path) -> str:
    """Use a dataset as the commands do; return the outcome."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert beton_command(["inspect", str(path)]) == 0
    messages = []
    try:
        with open_dataset(path) as file:
            assert source_line(file.info["provenance"]).isprintable()
            colour = file.info.get("pixels", {}).get("colour") == "rgb"
            normalize = channel_statistics(file) if colour else None
            view = View.of(file, 8, None if colour else 1.5, normalize=normalize)
            ids = np.array([0, len(file) - 1])
            with DeviceLoader(file, ids, view, 2, device=torch.device("cpu")) as loader:
                assert len(list(loader.micro_batches())) == 1
    except (BetonError, UserError) as error:
        messages.append(str(error))
    outcome = "refused" if messages else "used"
    try:
        result = prepare(open_source(source), path, pixels=PIXELS[source.name])
        outcome += ", overwritten" if result.built else ", up to date"
        write_card(path.with_suffix(".html"), path, name="case")
    except (BetonError, SourceError) as error:
        messages.append(str(error))
        outcome += ", not prepared"
    assert all(message.isprintable() for message in messages)
    return outcome


def run_cases(seed: int, first: int, cases: int, folder: Path) -> Counter[str]:
    """Run cases. An exception has a note with its case."""
    grey, colour = folder / "grey", folder / "colour"
    make_tree(grey, folders())
    make_tree(
        colour, {f"{i % 2}/{i}.png": saved(Image.fromarray(image(i % 3, i))) for i in range(12)}
    )
    sound = []
    for source in (grey, colour):
        path = prepare(
            open_source(source), source.with_suffix(".beton"), pixels=PIXELS[source.name]
        ).path
        with Reader(path) as reader:
            samples = [reader[i] for i in range(len(reader))]
            sound.append((source, reader.fields, samples, reader.info))
    outcomes: Counter[str] = Counter()
    path = folder / "case.beton"
    for number in range(first, first + cases):
        source, fields, samples, info = sound[number % 2]
        chance = random.Random(f"{seed}-{number}")
        writer.write(path, fields, samples, info=mutate(chance, info))
        try:
            outcomes[use(path, source)] += 1
        except Exception as error:
            error.add_note(f"case {number} of seed {seed}")
            raise
    return outcomes


def test_manifests_of_other_shapes_are_refused_or_used(tmp_path: Path) -> None:
    outcomes = run_cases(0, 0, 150, tmp_path)
    for outcome in ("refused", "used, overwritten", "used, up to date"):
        assert sum(n for name, n in outcomes.items() if name.startswith(outcome)) > 10, outcome


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Mutate manifests of datasets.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(run_cases(options.seed, options.first, options.cases, Path(temporary))))
