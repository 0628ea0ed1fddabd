"""What all synthetic sources have in common."""

from pathlib import Path

from pipeline.data.base import SYNTHETIC, Source


class SyntheticSource(Source):
    """A source without files, whose images are generated one at a time."""

    kind = SYNTHETIC
    origin = SYNTHETIC
    seconds_per_image = 300e-6
    path = Path("inkrun's generator")


TEST_IDS = 10**12  # the first sample of a test split, in the random numbers of its dataset
