"""Environments of peers, made on demand in .bench/<peer> and laid over the main one.

They see the main packages, so that torch is not installed again. Versions that conflict with them
are installed into the peer's environment and hide them; the main environment stays as it is.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.benchmarks.throughput.catalog import Peer
from pipeline.errors import UserError
from pipeline.runtime.overlay import create

LONGEST = 300  # characters of a reason
STAMP = ".inkrun-requirements"  # written last: what is installed, and for which Python


def python_of(peer: Peer, folder: Path, report: Callable[[str], None]) -> Path:
    """Return the Python of a peer, in an environment below `folder` if it has requirements.

    `report` gets a line if something has to be installed.

    Raises UserError with the reason, in one line, if it cannot be installed.
    """
    if not peer.requirements:
        return Path(sys.executable)
    environment = folder / peer.name
    python, stamp = environment / "bin" / "python", environment / STAMP
    state = "\n".join((sys.version, sys.prefix, *peer.requirements))
    if stamp.exists() and stamp.read_text() == state:
        return python
    report(f"{peer.name}: installing {' '.join(peer.requirements)} into {environment}")
    create(environment)
    command = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *peer.options, *peer.requirements],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        shutil.rmtree(environment)
        needs = f" (it needs {peer.system})" if peer.system else ""
        raise UserError(f"cannot be installed{needs}: {last_line(done.stdout)}")
    stamp.write_text(state)
    return python


def last_line(text: str) -> str:
    """Return the last line that names an error, or else the last line that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|[\w.]+(Error|Exception))\b", line)]
    last = (errors or lines or ["no reason given"])[-1]
    return last if len(last) <= LONGEST else f"{last[:LONGEST]}…"
