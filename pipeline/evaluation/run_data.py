"""The dataset that a finished run was trained on."""

from pathlib import Path

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.run_config import RunConfig
from pipeline.loading.dataset import open_dataset


def is_exported(config: RunConfig) -> bool:
    """Return whether a run is an export, which has names in place of paths."""
    return len(Path(config.data).parts) == 1


def open_run_data(config: RunConfig) -> Reader:
    """Open the dataset of a run.

    Raises UserError if the file is gone or has other content than in the training, and for an
    exported run, which has a name in place of the path; BetonError if the file is damaged.
    """
    path = Path(config.data)
    if not path.is_file():
        exported = "has no path in an export: give the run itself"
        why = exported if is_exported(config) else "is gone; prepare it again"
        raise UserError(f"the run's dataset {config.data} {why}")
    file = open_dataset(path)
    if (got := file.fingerprint()) != config.fingerprint:
        file.close()
        raise UserError(
            f"the run's dataset {config.data} has changed since the training: got the "
            f"fingerprint {got}, expected {config.fingerprint}"
        )
    return file
