"""The settings of a sweep: combinations of a job's options, from the command line and from a file.

Values are words of a command line or JSON values. They become values of the job's options, checked
before any training.
"""

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from pipeline.errors import UserError
from pipeline.evaluation.sweep_config import Setting
from pipeline.experiments.command import options_of
from pipeline.runtime import launch

K = TypeVar("K")
Values = dict[str, Any]  # by the name of an option

# What all trainings of a sweep share, and why.
FIXED = {
    "data": "trainings are compared on the same images",
    "runs": "trainings are in the run directory of the sweep",
    "resume": "a sweep is resumed as a whole: ./launch.sh sweep --resume RUN",
    "seed": "every setting has the same seeds; --seeds is their number",
    "decode": "it changes no result",
    "precision": "all trainings compute alike",
    "track": "it changes no result",
}
MAX_SETTINGS = 10_000
MEANINGS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a word",
    Path: "a path",
    NoneType: "None",
}


def find_settings(over: Sequence[str], file: Path | None, options: object) -> list[Setting]:
    """Return all settings: the grid of `over`, then those listed in `file`.

    `over` has entries OPTION=V1,V2…, and `options` is the dataclass of a job's options, whose
    fields they name. Without both, the only setting varies nothing. Raises UserError for an option
    that the job does not have or that a sweep fixes, for a value that an option does not accept,
    for a file that is not a list of objects, and for two equal settings.
    """
    names = {field.name for field in fields(options)}  # type: ignore[arg-type]
    found = grid([_axis(entry, names) for entry in over]) if over or file is None else []
    if file is not None:
        found += _listed(file, names)
    settings: dict[str, Setting] = {}
    for values in found:
        plain = options_of(with_values(options, values))
        values = {name: plain[name] for name in values}
        parts = (f"{name.replace('_', '-')} {_shown(value)}" for name, value in values.items())
        name = ", ".join(parts) or "as given"
        if name in settings:
            raise UserError(f"settings: got {name} twice, expected different settings")
        settings[name] = Setting(name, values)
    return [*settings.values()]


def grid(axes: Sequence[tuple[str, Sequence[str]]]) -> list[Values]:
    """Return every combination of the values of named options; the last option varies fastest.

    Raises UserError for an option or a value that is given twice, and for too many combinations.
    """
    names = [name for name, _ in axes]
    for name, values in axes:
        if names.count(name) > 1:
            raise UserError(f"over: got {name} twice, expected all its values in one --over")
        if repeated := [value for value in values if values.count(value) > 1]:
            raise UserError(f"over: got {name}={repeated[0]} twice, expected different values")
    combinations = itertools.product(*(values for _, values in axes))
    found = [*itertools.islice(combinations, MAX_SETTINGS + 1)]
    if len(found) > MAX_SETTINGS:
        raise UserError(f"over: got more than {MAX_SETTINGS:,} settings, expected fewer")
    return [dict(zip(names, values, strict=True)) for values in found]


def with_values(options: K, values: Mapping[str, Any]) -> K:
    """Return a job's options with some values replaced; words stand for numbers, booleans and None.

    A relative path is one in the folder from which the user called `launch.sh`. Raises UserError
    for a value that an option does not accept.
    """
    kind, hints = type(options), get_type_hints(type(options))
    plain = options_of(options)
    for name, value in values.items():
        plain[name] = None if value == "None" else value
        try:
            changed = _convert(plain, kind)
        except msgspec.ValidationError as error:
            raise UserError(
                f"{name.replace('_', '-')}: got {_shown(value)}, expected {_expected(hints[name])}"
            ) from error
        if isinstance(path := getattr(changed, name), Path):
            plain[name] = str(launch.caller_folder() / path)
    return _convert(plain, kind)


def _axis(entry: str, names: Collection[str]) -> tuple[str, list[str]]:
    option, sign, text = entry.partition("=")
    values = text.split(",")
    if not sign or not all(values):
        raise UserError(f"over: got {entry!r}, expected OPTION=V1,V2 with one value or more")
    return _option("over", option, names), values


def _listed(file: Path, names: Collection[str]) -> list[Values]:
    try:
        entries = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file}: got no JSON ({error}), expected a list of objects") from error
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{file}: got no list, expected a list of objects, one for each setting")
    settings = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise UserError(
                f"{file}: got {json.dumps(entry)} as setting {number}, expected an object of "
                "options and values"
            )
        settings.append({_option(str(file), name, names): value for name, value in entry.items()})
    return settings


def _option(where: str, option: str, names: Collection[str]) -> str:
    """Return the name of an option, which may be written as on the command line."""
    name = option.removeprefix("--").replace("-", "_")
    if reason := FIXED.get(name):
        raise UserError(f"{where}: got {option}, which a sweep does not vary: {reason}")
    if name not in names:
        known = ", ".join(sorted({*names} - {*FIXED})).replace("_", "-")
        raise UserError(f"{where}: got {option!r}, expected an option of the job: {known}")
    return name


def _convert(plain: Mapping[str, Any], kind: type[K]) -> K:
    return msgspec.convert(plain, kind, strict=False, dec_hook=lambda kind, value: kind(value))


def _expected(hint: Any) -> str:
    """Describe the values that a type accepts."""
    if get_origin(hint) in (UnionType, Union):
        return " or ".join(_expected(one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    return MEANINGS.get(hint, str(hint))


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)
