"""The datasets that a run was trained on, wherever they are now."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

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


def find_data(run: Path, name: str, saved: str, fingerprint: str, given: Path | None) -> Path:
    """Return the path of a dataset of the run directory `run`, which is to be resumed.

    `name` is the dataset's option, `saved` its path at the start. A `given` path must hold the same
    content. Without it, a relative path may also start at a folder above the run directory, so that
    a run can be resumed from any folder. Raises UserError if the dataset is not there or, for a
    given path, has another fingerprint; BetonError for a damaged one.
    """
    if given is not None:
        if not given.is_file():
            raise UserError(f"{name}: {given} is not there")
        if (got := _fingerprint(given)) != fingerprint:
            raise UserError(
                f"{name}: got other data than {run} was trained on: {given} has the fingerprint "
                f"{got}, expected {fingerprint}, that of {saved}"
            )
        return given
    places = [Path(), *run.resolve().parents]
    found = [path for place in places if (path := place / saved).is_file()]
    if not found:
        raise UserError(
            f"{name}: {saved} is not there, the dataset of {run}; if it has moved: --{name} FILE"
        )
    # The content decides; if none fits, the training reports what is at the saved path.
    return next((path for path in found if _fingerprint(path) == fingerprint), found[0])


def _fingerprint(path: Path) -> str:
    with open_dataset(path) as file:
        return file.fingerprint()


def moved_run(run: Path, config: RunConfig, data: Path | None, auxiliary: Path | None) -> RunConfig:
    """Return the configuration of a training with the present paths of its datasets.

    Raises what `find_data` raises, and UserError for an auxiliary dataset that the training has no
    use for.
    """
    found = find_data(run, "data", config.data, config.fingerprint, data)
    config = replace(config, data=str(found))
    if config.auxiliary is None:
        if auxiliary is not None:
            raise UserError(f"auxiliary: {run} is trained without an auxiliary dataset")
        return config
    saved = config.auxiliary
    found = find_data(run, "auxiliary", saved.data, saved.fingerprint, auxiliary)
    return replace(config, auxiliary=replace(saved, data=str(found)))


def moved_paths(
    run: Path, options: Mapping[str, Any], datasets: Mapping[str, str], given: Mapping[str, Path]
) -> dict[str, str]:
    """Return the present paths of the datasets of an experiment, by option.

    `options` are those at the start, `datasets` the fingerprints by option. A default dataset has
    no entry unless it is given. Raises what `find_data` raises, and UserError for a given dataset
    whose fingerprint the run directory lacks.
    """
    if unknown := given.keys() - datasets.keys():
        raise UserError(
            f"{min(unknown)}: {run} has no fingerprint of it to compare with; leave it out"
        )
    return {
        name: str(find_data(run, name, options[name] or "the default", fingerprint, path))
        for name, fingerprint in datasets.items()
        if (path := given.get(name)) is not None or options.get(name) is not None
    }
