"""Let the tests import their helpers (`reference`, …) from this folder; no test is a timing."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

# Before torch is imported: what is small gains nothing from threads, and where others want the
# cores as well, threads that wait for each other come to a standstill.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("inkrun", deadline=None)
settings.load_profile("inkrun")


@pytest.fixture(autouse=True)
def as_in_a_process_of_its_own() -> Iterator[None]:
    """Let accelerate forget the precision that a test began with: it keeps one for the process."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(True)
