"""A virtual environment laid over the one of this Python: it sees all packages of that one.

Versions that are installed into it hide those of the main environment. Standard library only:
`launch.sh` runs this file with the folder of the new environment as its argument.
"""

import sys
import sysconfig
import venv
from pathlib import Path


def create(folder: Path) -> None:
    """Create the environment in `folder`; an earlier one is replaced. Its pip is the main one's."""
    venv.create(folder, clear=True, symlinks=True)
    main = Path(sysconfig.get_path("purelib"))
    packages = folder / main.relative_to(sys.prefix)
    packages.mkdir(parents=True, exist_ok=True)
    line = f"import site; site.addsitedir({str(main)!r})\n"
    (packages / "main.pth").write_text(line)


if __name__ == "__main__":
    create(Path(sys.argv[1]))
