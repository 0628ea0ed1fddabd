"""The app with a model, as a folder that a hosting service for Gradio apps runs as it is.

It holds the model repository, the code of inkrun that the app needs, and the versions of other
packages that the code was written for.
"""

import json
import shutil
import sys
import tomllib
from pathlib import Path

from pipeline.evaluation.evaluate import TrainedModel
from pipeline.export.hub import write_hub

ROOT = Path(__file__).resolve().parents[2]  # the checkout
PACKAGES = ("beton", "pipeline")
LEFT_OUT = ("__pycache__", "*.pyc", "*.nbi", "*.nbc")

APP = '''"""Serve the app with the model beside it: python app.py"""

import os
from pathlib import Path

from pipeline.app.server import serve

if __name__ == "__main__":
    hosted = "SPACE_ID" in os.environ
    host = os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if hosted else "127.0.0.1")
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    serve([Path(__file__).resolve().parent / "model"], host, port)
'''

README = """---
title: {title}
sdk: gradio
sdk_version: "{gradio}"
python_version: "{python}"
app_file: app.py
pinned: false
---

# {heading}

Draw a character or drop an image: the app shows the predictions of the network, what it saw, and
where it looked (Grad-CAM). `model/README.md` is the model card: data, figures, limits.

The training images are not part of this folder, so the app shows no nearest training images.

On your own machine, with Python {python} or newer:

    pip install -r requirements.txt
    python app.py

The app is then at http://127.0.0.1:7860. It needs no other files, and asks no other machine.
"""


def write_space(folder: Path, trained: TrainedModel) -> list[str]:
    """Write the app and the model of a finished run; return what to print about it."""
    model = folder / "model"
    model.mkdir()
    write_hub(model, trained)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns(*LEFT_OUT))
    shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    app = project["optional-dependencies"]["app"]
    requirements = sorted({*project["dependencies"], *app}, key=str.lower)
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
    (folder / "app.py").write_text(APP)
    name = f"{Path(trained.config.data).stem}: {trained.config.network}"
    (folder / "README.md").write_text(
        README.format(
            title=json.dumps(name, ensure_ascii=False),
            heading=name,
            gradio=_lowest(app, "gradio"),
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
        ),
        encoding="utf-8",
    )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return [
        f"app.py, requirements.txt, README.md, model/ and the code it needs: {size / 1e6:.1f} MB",
        "try it: pip install -r requirements.txt; python app.py",
    ]


def _lowest(requirements: list[str], package: str) -> str:
    """Return the lowest version that a requirement such as "gradio>=6.31,<7" accepts."""
    (found,) = (one for one in requirements if one.startswith(f"{package}>="))
    version = found.removeprefix(f"{package}>=").split(",")[0]
    return version if version.count(".") == 2 else f"{version}.0"
