from pathlib import Path

import forked
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def test_the_benchmark_runs_and_prints_its_tables(tmp_path: Path) -> None:
    for i in range(8):
        folder = tmp_path / "pages" / f"Sample{i % 2 + 1:03}"
        folder.mkdir(parents=True, exist_ok=True)
        page = np.full((90, 120), 255, np.uint8)
        page[20 + i : 60, 30:40] = 0
        Image.fromarray(page).save(folder / f"img{i}.png")
    command = ["jobs/bench/loader.py", "--source", str(tmp_path / "pages")]
    small = ["--rounds", "1", "--digits", "600", "--batch-size", "4", "--size", "16"]
    result = forked.run([*command, *small], ROOT)
    assert result.returncode == 0, result.stderr
    for part in (
        "Bytes of 8 pages",
        "ink payload",
        "inkrun, 2 threads",
        "First batch:",
        "noise",
    ):
        assert part in result.stdout
