"""The Dockerfile: hadolint's rules, and what it copies is there. Building it needs Docker."""

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "Dockerfile").read_text()
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which(
    "hadolint"
)


def copied() -> list[str]:
    """The paths that the Dockerfile copies from the checkout."""
    instructions = re.findall(r"^COPY (?:--\S+ )*(.+)$", TEXT, re.MULTILINE)
    return [path for line in instructions for path in line.split()[:-1]]


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint (./launch.sh setup test)")
def test_hadolint_finds_nothing() -> None:
    run = subprocess.run(
        [str(HADOLINT), "Dockerfile"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (0, "")


def test_what_is_copied_is_there_and_not_ignored() -> None:
    paths = copied()
    assert {"launch.sh", "beton/", "pipeline/", "jobs/"} <= {*paths}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    sent = [line.removeprefix("!") for line in lines if line.startswith("!")]
    for path in paths:
        assert (ROOT / path).exists()
        assert any(fnmatch.fnmatch(path.split("/")[0], name) for name in sent), path


def test_the_image_holds_what_the_installation_reads() -> None:
    """Copied before the code, so that a change of the code does not install again."""
    before = TEXT[: TEXT.index("./launch.sh setup")]
    for name in re.findall(r'"(\w+\.md|LICENSE)"', (ROOT / "pyproject.toml").read_text()):
        if (ROOT / name).exists():
            assert name in before


def test_it_runs_as_an_ordinary_user_with_launch_sh_as_entry() -> None:
    instructions = [line for line in TEXT.splitlines() if re.match(r"[A-Z]+ ", line)]
    last_user = [line for line in instructions if line.startswith("USER")][-1]
    assert last_user == "USER ${UID}"
    assert 'ENTRYPOINT ["/inkrun/launch.sh"]' in instructions
    assert 'VOLUME ["/inkrun/data", "/inkrun/runs"]' in instructions
