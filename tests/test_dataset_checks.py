"""A dataset of another program is checked once, when a job opens it, and refused in one line."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from every_field import without_manifest
from hypothesis import given
from hypothesis import strategies as st
from tiny import page, write_set

from beton import writer
from beton.errors import BetonError
from beton.fields import Field, FloatField, InkField, IntField, NDArrayField
from jobs import evaluate, part1
from pipeline.errors import UserError
from pipeline.loading.dataset import open_dataset, source_line
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.reporting.common import origins
from pipeline.runtime import launch
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import join_processes

INFO: dict[str, Any] = {
    "classes": ["a", "b"],
    "provenance": {"kind": "real", "source": "theirs", "digest": "sha256:theirs"},
}


def foreign(
    path: Path,
    labels: Sequence[float] = (0, 1, 0, 1),
    splits: Sequence[float] = (0, 0, 1, 1),
    writers: Sequence[float] = (-1, 0, 1, 7),
    fields: Mapping[str, Field | None] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """Write a file with prep's fields as another program might; None drops a field or an entry."""
    kinds: dict[str, Field | None] = {
        "image": InkField(),
        "label": IntField(),
        "split": IntField(),
        "writer": IntField(),
        **(fields or {}),
    }
    present = {name: kind for name, kind in kinds.items() if kind is not None}
    values: dict[str, Sequence[Any]] = {
        "image": [page("A", number) for number in range(len(labels))],
        "label": labels,
        "split": splits,
        "writer": writers,
    }
    samples = [{name: values[name][i] for name in present} for i in range(len(labels))]
    entries = {name: value for name, value in {**INFO, **(info or {})}.items() if value is not None}
    writer.write(path, present, samples, info=entries)
    return path


def refusal(path: Path) -> BetonError:
    """The error of opening a file: one line that names it."""
    with pytest.raises(BetonError) as found:
        open_dataset(path)
    assert str(found.value).startswith(f"{path}: ")
    assert "\n" not in str(found.value)
    return found.value


def test_a_sound_file_of_another_program_is_opened(tmp_path: Path) -> None:
    with open_dataset(foreign(tmp_path / "a.beton")) as file:
        assert source_line(file.info["provenance"]) == "real data: theirs"
    plain = foreign(tmp_path / "b.beton", fields={"writer": None}, info={"prepare": {"seed": 3}})
    open_dataset(plain).close()


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("label", -1, "0 to 1 for 2 classes"),
        ("label", 2, "0 to 1 for 2 classes"),
        ("label", 99, "0 to 1 for 2 classes"),
        ("label", -(2**63), "0 to 1 for 2 classes"),
        ("split", -1, "0 to 2 for train, validation, test"),
        ("split", 3, "0 to 2 for train, validation, test"),
        ("writer", -2, "at least -1"),
    ],
)
def test_numbers_out_of_range_are_named_with_their_sample(
    name: str, number: int, expected: str, tmp_path: Path
) -> None:
    values = [0, 1, number, number]
    options: dict[str, Any] = {f"{name}s": values}
    error = refusal(foreign(tmp_path / "a.beton", **options))
    assert (error.field, error.sample, error.got) == (name, 2, number)
    assert error.expected == expected


@given(st.lists(st.integers(-3, 5), min_size=1, max_size=6))
def test_labels_are_refused_unless_all_are_classes(
    tmp_path_factory: pytest.TempPathFactory, labels: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "labels.beton"
    foreign(path, labels, [0] * len(labels), [0] * len(labels))
    if {*labels} <= {0, 1}:
        open_dataset(path).close()
    else:
        first = next(i for i, label in enumerate(labels) if label not in (0, 1))
        assert refusal(path).sample == first


@pytest.mark.parametrize("name", ["label", "split", "writer"])
def test_numbers_that_are_not_integers_are_refused(name: str, tmp_path: Path) -> None:
    error = refusal(foreign(tmp_path / "a.beton", fields={name: FloatField()}))
    assert (error.field, error.got, error.expected) == (name, "FloatField", "IntField")


def test_images_of_another_kind_and_missing_fields_are_refused(tmp_path: Path) -> None:
    arrays = foreign(tmp_path / "a.beton", fields={"image": NDArrayField("|u1", (90, 120))})
    assert (refusal(arrays).field, refusal(arrays).expected) == ("image", "InkField")
    for name in ("image", "label", "split"):
        error = refusal(foreign(tmp_path / "b.beton", fields={name: None}))
        assert (error.reason, error.expected) == ("not a file that prep writes", name)


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"classes": None}, "missing required field `classes`"),
        ({"classes": []}, "length >= 1 - at `info.classes`"),
        ({"classes": {"a": 0, "b": 1}}, "Expected `array`, got `object` - at `info.classes`"),
        ({"classes": ["a", 7]}, "Expected `str`, got `int` - at `info.classes[1]`"),
        ({"classes": ["a", ""]}, "length >= 1 - at `info.classes[1]`"),
        ({"classes": ["a", "b", "a"]}, "classes of one name (got a, "),
        ({"provenance": None}, "missing required field `provenance`"),
        ({"provenance": {}}, "missing required field `kind` - at `info.provenance`"),
        ({"provenance": []}, "Expected `object`, got `array` - at `info.provenance`"),
        ({"provenance": {"kind": "real", "source": ""}}, "at `info.provenance.source`"),
        ({"provenance": {"kind": "real", "source": "x"}}, "missing required field `digest`"),
        ({"provenance": {"kind": 3, "source": "x", "digest": "y"}}, "got `int` - at `info.prov"),
        ({"provenance": {"kind": "a", "source": "x", "digest": "y"}}, "at `info.provenance.kind`"),
        ({"prepare": {"skipped": 3}}, "Expected `array`, got `int` - at `info.prepare.skipped`"),
        ({"pixels": 3}, "Expected `object | null`, got `int` - at `info.pixels`"),
        ({"pixels": {"polarity": "up", "fit": "stretch"}}, "at `info.pixels.polarity`"),
        ({"pixels": {"polarity": "dark", "fit": "zoom"}}, "at `info.pixels.fit`"),
        ({"pixels": {"polarity": "dark"}}, "missing required field `fit`"),
    ],
)
def test_entries_of_the_manifest_that_do_not_fit_are_named(
    info: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    error = str(refusal(foreign(tmp_path / "a.beton", info=info)))
    assert reason in error


@pytest.mark.parametrize(
    ("entry", "facts"),
    [
        ({"paper": {"samples": [4], "greys": [0]}}, "(got sample 4, expected samples 0 to 3)"),
        ({"paper": {"samples": [-1], "greys": [0]}}, "got sample -1"),
        ({"paper": {"samples": [1, 2], "greys": [0]}}, "got 2 samples, 2 of them distinct, 1 gr"),
        ({"paper": {"samples": [1, 1], "greys": [0, 9]}}, "got 2 samples, 1 of them distinct"),
        ({"paper": {"samples": [1], "greys": [256]}}, "<= 255 - at `info.pixels.paper.greys"),
        ({"paper": {"samples": ["1"], "greys": [2]}}, "at `info.pixels.paper.samples"),
        ({"scale": [5, 5]}, "pixels.scale of the manifest (got 5 to 5, expected low to high)"),
        ({"scale": [1, 2, 3]}, "at `info.pixels.scale`"),
    ],
)
def test_papers_and_scales_that_do_not_fit_are_named(
    entry: dict[str, Any], facts: str, tmp_path: Path
) -> None:
    pixels = {"polarity": "dark", "fit": "letterbox", "more": "of a later version", **entry}
    assert facts in str(refusal(foreign(tmp_path / "a.beton", info={"pixels": pixels})))


def test_a_file_cut_off_before_its_manifest_does_not_pass_unseen(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.beton")
    path.write_bytes(without_manifest(path.read_bytes()))
    error = refusal(path)
    assert error.reason == ("not a file that prep writes: no checksums: written by another program")


@pytest.mark.parametrize("job", ["evaluate", "part1"])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"labels": (0, 1, -1, 1)}, "field 'label', sample 2: out of range (got -1, expected 0 to"),
        ({"labels": (0, 1, 99, 1)}, "field 'label', sample 2: out of range (got 99, expected 0 to"),
        ({"fields": {"label": FloatField()}}, "field 'label': another type of field (got Float"),
        ({"info": {"classes": [1, 2]}}, "Expected `str`, got `int` - at `info.classes"),
        ({"info": {"provenance": {}}}, "missing required field `kind` - at `info.provenance`"),
    ],
)
def test_jobs_refuse_it_with_exit_status_2(
    job: str,
    options: dict[str, Any],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(launch, "use_cores", lambda: 1)
    monkeypatch.setattr(evaluate, "load_model", trained_on_tiny)
    path = str(foreign(tmp_path / "theirs.beton", **options))
    given = {"evaluate": ["run", "--source", path], "part1": ["--data", path]}[job]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [job, *given])
    assert {"evaluate": evaluate, "part1": part1}[job].main() == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"{job}: {path}: ")
    assert error.count("\n") == 1
    assert reason in error
    assert [found.name for found in tmp_path.iterdir()] == ["theirs.beton"]


def trained_on_tiny(_run: Path) -> object:
    """A stand-in for a trained network: files are checked before it matters."""
    return None


def test_a_report_on_a_run_of_unknown_origin_is_refused_and_a_line_names_it_so() -> None:
    for provenance in ({}, {"kind": "x", "source": "y"}, {"kind": "real", "source": ""}):
        with pytest.raises(UserError, match=r"provenance: got \{.* prepare the dataset again"):
            origins([provenance])
    assert source_line({}) == "unknown data: unknown"


def test_a_training_without_samples_is_refused(tmp_path: Path) -> None:
    recipe = Recipe((Stage(16, 1, 1e-3),), batch_size=4)
    with (
        open_dataset(write_set(tmp_path / "none.beton", 0, 3)) as file,
        join_processes("no") as processes,
        pytest.raises(UserError, match=r"none\.beton: no images to train on in its split 'train'"),
    ):
        DataModule(processes, recipe, file)


def test_a_file_that_fails_the_checks_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr("beton.reader.Reader.close", lambda self: closed.append(self.path))
    path = foreign(tmp_path / "a.beton", [0, 9])
    with pytest.raises(BetonError):
        open_dataset(path)
    assert closed == [path]
