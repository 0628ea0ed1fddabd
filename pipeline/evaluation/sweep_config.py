"""The config.json of a sweep: the settings and seeds of its trainings, and their folders."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.loading.dataset import Provenance

MAX_SLUG = 80  # characters of a setting's name in the name of a folder


@dataclass(frozen=True)
class Setting:
    """Options of a job that a sweep varies, as JSON values, and the name of their combination."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class SettingGroup:
    """Settings that are trained with the same seeds and compared. `name` starts their folders."""

    name: str
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]

    def folder(self, setting: Setting, seed: int) -> str:
        """Return the name of a training's folder in the run directory of the sweep."""
        number = self.settings.index(setting) + 1
        slug = re.sub(r"[^\w.]+", "-", setting.name)[:MAX_SLUG].strip("-")
        return f"{self.name}{number}_{slug}-{seed}"

    def labels(self) -> dict[str, str]:
        """Return a description of each training by its folder, setting by setting."""
        return {
            self.folder(setting, seed): f"{setting.name}, seed {seed}"
            for setting in self.settings
            for seed in self.seeds
        }


@dataclass(frozen=True)
class SweepConfig:
    """The config.json of a sweep of the job or dataset `name`, whose trainings are of `trains`.

    `words` are the command's options. `options` are the job's, as JSON values, before a setting
    replaces some. `groups` are planned from the start. `published` marks the published comparison
    of optimizers.
    """

    job: str
    name: str
    trains: str
    words: tuple[str, ...]
    options: dict[str, Any]
    groups: tuple[SettingGroup, ...]
    classes: tuple[str, ...]
    provenance: Provenance
    published: bool = False

    @property
    def command(self) -> str:
        """The command line that repeats the sweep."""
        return shlex.join(["./launch.sh", "sweep", self.name, *self.words])
