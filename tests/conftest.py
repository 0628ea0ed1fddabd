"""Let the tests import their helpers (`reference`, …) from this folder; no test is a timing."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("inkrun", deadline=None)
settings.load_profile("inkrun")
