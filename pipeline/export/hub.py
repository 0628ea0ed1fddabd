"""A trained network as a folder in the shape of a model repository.

The folder has the names of a run directory's files, so each command that reads a finished run also
reads it. It has no path of the machine that trained the network.
"""

import shutil
from pathlib import Path

from pipeline.evaluation.evaluate import TrainedModel, load_model
from pipeline.evaluation.run_dir import RunDir, TrainingResult, read_result
from pipeline.export.model_card import FIGURES, model_card

COPIED = ("model.safetensors", "view.json", "framing.json", *FIGURES)


def write_hub(folder: Path, trained: TrainedModel) -> list[str]:
    """Write the model repository of a finished run into a folder; return what to print about it.

    Raises UserError if the folder cannot be loaded again.
    """
    run = trained.run
    copied = [name for name in COPIED if (run / name).exists()]
    for name in copied:
        shutil.copyfile(run / name, folder / name)
    config = trained.config.portable()
    RunDir(folder).write_json("config.json", config.as_json())
    card = model_card(config, read_result(run, TrainingResult), trained, copied)
    (folder / "README.md").write_text(card, encoding="utf-8")
    load_model(folder)
    return [f"{path.name}: {path.stat().st_size:,} bytes" for path in sorted(folder.iterdir())]
