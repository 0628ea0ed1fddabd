"""The settings of a sweep: the grid of --over, the list of a file, and what both reject."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.experiments.sweep.settings import find_settings, grid, with_values

WORDS = st.text("abc", min_size=1, max_size=3)
AXES = st.dictionaries(WORDS, st.lists(WORDS, min_size=1, max_size=4, unique=True), max_size=4).map(
    lambda axes: [*axes.items()]
)


@dataclass(frozen=True)
class Options:
    """Options of a job."""

    data: Path | None = None
    auxiliary: Path | None = None
    learning_rate: float | Literal["find"] | None = None
    batch_size: int | Literal["auto"] | None = None
    optimizer: str | None = None
    recipe: Literal["fast", "slow"] = "fast"
    balanced_sampler: bool = False
    epochs: int = 3
    seed: int = 0


def find(*over: str, file: Path | None = None) -> list[dict[str, Any]]:
    return [dict(one.options) for one in find_settings(over, file, Options())]


def refusal(*over: str, file: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        find_settings(over, file, Options())
    message = str(caught.value)
    assert "\n" not in message
    return message


@given(AXES)
def test_the_grid_has_every_combination_once(axes: list[tuple[str, list[str]]]) -> None:
    found = grid(axes)
    assert len(found) == math.prod(len(values) for _, values in axes)
    assert len({json.dumps(one) for one in found}) == len(found)
    for one in found:
        assert [*one] == [name for name, _ in axes]
        assert all(one[name] in values for name, values in axes)


@given(AXES)
def test_the_last_option_varies_fastest(axes: list[tuple[str, list[str]]]) -> None:
    places = [[values.index(one[name]) for name, values in axes] for one in grid(axes)]
    assert places == sorted(places)


def test_words_become_values_of_the_options() -> None:
    assert find("learning-rate=1e-3,find,None", "--batch_size=64,auto") == [
        {"learning_rate": rate, "batch_size": size}
        for rate in (0.001, "find", None)
        for size in (64, "auto")
    ]
    assert find("balanced-sampler=true,False") == [
        {"balanced_sampler": True},
        {"balanced_sampler": False},
    ]


def test_settings_are_named_by_what_they_vary() -> None:
    names = [
        one.name for one in find_settings(["learning-rate=1e-3,0.01", "epochs=2"], None, Options())
    ]
    assert names == ["learning-rate 0.001, epochs 2", "learning-rate 0.01, epochs 2"]
    assert [one.name for one in find_settings([], None, Options())] == ["as given"]


def test_a_listed_setting_comes_after_the_grid(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('[{"optimizer": "SGD", "learning-rate": 1}, {"--epochs": 4}, {}]')
    assert find("epochs=1", file=file) == [
        {"epochs": 1},
        {"optimizer": "SGD", "learning_rate": 1.0},
        {"epochs": 4},
        {},
    ]
    assert len(find(file=file)) == 3


def test_a_path_is_one_of_the_callers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INKRUN_CALLER", str(tmp_path))
    assert with_values(Options(), {"auxiliary": "a.beton"}).auxiliary == tmp_path / "a.beton"


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (
            ["rate=1"],
            "over: got 'rate', expected an option of the job: auxiliary, balanced-sampler",
        ),
        (["epochs"], "over: got 'epochs', expected OPTION=V1,V2"),
        (["epochs=1,,2"], "over: got 'epochs=1,,2', expected OPTION=V1,V2"),
        (["epochs=1", "epochs=2"], "over: got epochs twice"),
        (["epochs=1,2,1"], "over: got epochs=1 twice"),
        (["learning-rate=1e-3,0.001"], "settings: got learning-rate 0.001 twice"),
        (["epochs=1,many"], "epochs: got many, expected an integer"),
        (["recipe=fast,best"], "recipe: got best, expected fast or slow"),
        (["batch-size=all"], "batch-size: got all, expected an integer or auto or None"),
        (["balanced-sampler=maybe"], "balanced-sampler: got maybe, expected true or false"),
        (["data=a,b"], "over: got data, which a sweep does not vary: trainings are compared on"),
        (["seed=1,2"], "over: got seed, which a sweep does not vary: every setting has the same"),
        (
            [
                f"epochs={','.join(map(str, range(200)))}",
                f"batch-size={','.join(map(str, range(200)))}",
            ],
            "over: got more than 10,000 settings",
        ),
    ],
)
def test_what_cannot_be_a_setting_is_one_line(over: list[str], message: str) -> None:
    assert refusal(*over).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "got no JSON"),
        ("{}", "got no list"),
        ("[]", "got no list"),
        ("[{}, 3]", "got 3 as setting 2, expected an object"),
        ('[{"rate": 1}]', "got 'rate', expected an option of the job"),
        ('[{"epochs": 1.5}]', "epochs: got 1.5, expected an integer"),
        ('[{"epochs": 3}, {"epochs": "3"}]', "settings: got epochs 3 twice"),
    ],
)
def test_a_bad_list_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(text)
    assert message in refusal(file=file)
