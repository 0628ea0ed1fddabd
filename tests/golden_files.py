"""The files in tests/golden: a file for each field, written by this version, and one by FFCV.

    python tests/golden_files.py            # writes missing files

Files of a released format do not change: a new version adds files with other names.
"""

import gzip
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from every_field import FIELDS, INFO, EveryField

from beton.writer import write

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = 4
THEIRS = GOLDEN / "ffcv-1.0.2.beton.gz"  # most of it is padding
THEIR_PIXELS = GOLDEN / "ffcv-1.0.2-jpg.npy"  # as FFCV decodes them
THEIR_FIELDS = [name for name in FIELDS if name != "ink"]


def ours(name: str) -> Path:
    return GOLDEN / f"{name}-1.beton"


def write_ours(path: Path, name: str) -> None:
    samples = [(EveryField()[i][name],) for i in range(SAMPLES)]
    write(path, {name: FIELDS[name]}, samples, info=INFO, page_size=4096)


class TheirSamples:
    """Samples for FFCV's writer."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        import torch

        sample = EveryField()[int(i)]
        sample["bytes"] = np.frombuffer(sample["bytes"], np.uint8)
        sample["tensor"] = torch.from_numpy(sample["tensor"])
        return tuple(sample[name] for name in THEIR_FIELDS)


def write_theirs() -> None:
    import ffcv
    import torch
    from ffcv import fields

    theirs = {
        "float": fields.FloatField(),
        "int": fields.IntField(),
        "raw": fields.RGBImageField("raw"),
        "jpg": fields.RGBImageField("jpg"),
        "bytes": fields.BytesField(),
        "array": fields.NDArrayField(np.dtype("<i2"), (2, 3)),
        "json": fields.JSONField(),
        "tensor": fields.TorchTensorField(torch.float32, (4,)),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.beton"
        writer = ffcv.DatasetWriter(str(path), theirs, page_size=1 << 21, num_workers=1)
        writer.from_indexed_dataset(TheirSamples())
        THEIRS.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        # FFCV confuses an empty value with the next region, so the loader skips the bytes.
        loader = ffcv.Loader(str(path), SAMPLES, num_workers=1, pipelines={"bytes": None})
        (batch,) = loader
        np.save(THEIR_PIXELS, batch[THEIR_FIELDS.index("jpg")].numpy())


if __name__ == "__main__":
    for name in FIELDS:
        if not ours(name).exists():
            write_ours(ours(name), name)
    if not THEIRS.exists():
        write_theirs()
