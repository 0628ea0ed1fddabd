"""The dataset that a finished run was trained on."""

from pathlib import Path

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.run_config import RunConfig
from pipeline.loading.dataset import open_dataset


def open_run_data(config: RunConfig) -> Reader:
    """Open the dataset of a run.

    Raises UserError if the file is gone or has other content than in the training, and BetonError
    if it is damaged.
    """
    path = Path(config.data)
    if not path.is_file():
        raise UserError(f"the run's dataset {config.data} is gone; prepare it again")
    file = open_dataset(path)
    if (got := file.fingerprint()) != config.fingerprint:
        file.close()
        raise UserError(
            f"the run's dataset {config.data} has changed since the training: got the "
            f"fingerprint {got}, expected {config.fingerprint}"
        )
    return file
