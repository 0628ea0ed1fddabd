"""The layout of image files: what folders, names and tables mean, and what is refused."""

import itertools
import shlex
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_data import make_tree, make_zip, picture, saved

from pipeline.data.base import NO_SPLIT, SPLITS, ImageError, LayoutError, Source, SourceError
from pipeline.data.layout.folders.split_level import check_split_classes
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.sources import open_source

IMAGE = picture(0)
DIGITS = tuple("0123456789")


def grid(*levels: Iterable[str], count: int = 3) -> dict[str, bytes]:
    """Images 0.png, 1.png … in every combination of folders, one from each level."""
    return {
        "/".join((*folders, f"{i}.png")): IMAGE
        for folders in itertools.product(*levels)
        for i in range(count)
    }


def parse(words: str) -> LayoutOptions:
    """Parse options as a shell and the command line do."""
    given: dict[str, Any] = {"exclude": (), "include": ()}
    parts = shlex.split(words)
    for name, value in zip(parts[::2], parts[1::2], strict=True):
        field = name.removeprefix("--").replace("-", "_")
        given[field] = (*given[field], value) if field in ("exclude", "include") else value
    return LayoutOptions.parse(**given)


def opened(folder: Path, files: Mapping[str, bytes], words: str = "") -> Source:
    return open_source(make_tree(folder / "set", files), parse(words))


def refused(folder: Path, files: Mapping[str, bytes], reason: str, words: str = "") -> LayoutError:
    """Return the error of a layout; every option that it suggests leads to a source."""
    path = make_tree(folder / "set", files)
    with pytest.raises(LayoutError, match=reason) as caught:
        open_source(path, parse(words))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    for suggestion in caught.value.suggestions:
        follow(path, f"{words} {suggestion}")
    return caught.value


def outcome(path: Path, words: str) -> Source | SourceError:
    try:
        return open_source(path, parse(words))
    except SourceError as error:
        return error


def follow(path: Path, words: str, questions: int = 8) -> None:
    """Check that options lead to a source, or to other suggestions that do."""
    found = outcome(path, words)
    if isinstance(found, Source):
        assert len(found.annotations.classes) > 1
        return
    assert isinstance(found, LayoutError), words
    assert found.suggestions, words
    assert questions, words
    follow(path, f"{words} {found.suggestions[0]}", questions - 1)


def table(source: Source) -> Counter[tuple[str, str]]:
    """The number of images by class and split; "" is a split that prep chooses."""
    entries = source.annotations
    names = {NO_SPLIT: "", **dict(enumerate(SPLITS))}
    return Counter(
        (entries.classes[label], names[split])
        for label, split in zip(entries.labels, entries.splits.tolist(), strict=True)
    )


# Splits


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Training", "Testing"),
        ("trainingSet/trainingSet", "testSet/testSet"),
        ("train_images", "test_images"),
        ("train/images", "test/images"),
        ("data/trn", "data/tst"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("mnist_png/mnist_train", "mnist_png/mnist_test"),
        ("Train Set", "Test-Set"),
        ("train_val", "test"),
    ],
)
def test_unlabelled_images_of_a_test_folder_are_counted_and_no_class(
    tmp_path: Path, train: str, test: str
) -> None:
    source = opened(tmp_path, grid([train], "01") | grid([test], count=2))
    assert table(source) == {("0", ""): 3, ("1", ""): 3}
    left_out = {f"unlabelled images of {test.removeprefix('data/').split('/')[0]}": 2}
    if "mnist" in test:
        left_out = {"unlabelled images of mnist_test": 2}
    assert source.layout.left_out == left_out
    labelled = opened(tmp_path / "labelled", grid([train, test], "01"))
    assert table(labelled) == {(c, split): 3 for c in "01" for split in ("", "test")}
    assert labelled.layout.split_from


def test_a_given_validation_stays_beside_an_unlabelled_test_folder(tmp_path: Path) -> None:
    source = opened(tmp_path, grid(["train", "val"], "01") | grid(["test"]))
    assert table(source) == {(c, split): 3 for c in "01" for split in ("train", "validation")}
    assert source.layout.left_out == {"unlabelled images of test": 3}
    assert (source.layout.class_from, source.layout.split_from) == ("folder:1", "folder:0")


def test_splits_may_be_below_the_classes(tmp_path: Path) -> None:
    source = opened(tmp_path, grid("012", ["train", "test"]))
    assert table(source) == {(c, split): 3 for c in "012" for split in ("", "test")}
    assert (source.layout.class_from, source.layout.split_from) == ("folder:-2", "folder:1")


def test_splits_and_classes_may_have_a_container_between_them(tmp_path: Path) -> None:
    source = opened(tmp_path, grid(["train", "val", "test"], ["images"], "012"))
    assert table(source) == {(c, split): 3 for c in "012" for split in SPLITS}


def test_a_container_may_be_in_some_splits_or_classes_alone(tmp_path: Path) -> None:
    files = grid(["train"], ["images"], "01") | grid(["test"], "0") | grid(["test"], "1", ["png"])
    assert table(opened(tmp_path, files)) == {(c, s): 3 for c in "01" for s in ("", "test")}


def test_images_of_splits_without_classes_are_refused(tmp_path: Path) -> None:
    assert not refused(tmp_path, grid(["train", "test"]), "nothing gives the class").suggestions


def test_file_names_that_may_give_the_class_are_suggested(tmp_path: Path) -> None:
    names = [f"train/{c}.{i}.jpg" for c in ("cat", "dog") for i in range(4)]
    files = dict.fromkeys([*names, "test/1.jpg", "test/2.jpg"], IMAGE)
    error = refused(tmp_path, files, "nothing gives the class")
    source = opened(tmp_path, files, error.suggestions[0])
    assert table(source) == {("cat", ""): 4, ("dog", ""): 4}
    assert source.layout.left_out == {"unlabelled images of test": 2}


def test_a_test_folder_alone_stays_the_test_split(tmp_path: Path) -> None:
    assert table(opened(tmp_path, grid(["test"], "AB"))) == {("A", "test"): 3, ("B", "test"): 3}
    alone = opened(tmp_path / "train", grid(["train"], "AB"))
    assert table(alone) == {("A", ""): 3, ("B", ""): 3}
    assert alone.layout.split_from == ""


def test_only_folders_below_the_source_are_splits(tmp_path: Path) -> None:
    assert table(opened(tmp_path / "train" / "test", grid("AB"))) == {("A", ""): 3, ("B", ""): 3}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (grid(["train", "test", "extra"], "01"), "extra"),
        (grid(["train", "test"], "01") | grid(["unlabelled"]), "unlabelled"),
        (grid(["seg_train", "seg_test"], "01") | grid(["seg_pred"]), "seg_pred"),
        (grid("01") | grid(["test"]), "0, 1"),
        (grid("0123456789") | grid(["val", "train"]), "0, 1, 2, 3, …"),
    ],
)
def test_a_folder_beside_splits_that_is_none_is_refused(
    tmp_path: Path, files: dict[str, bytes], names: str
) -> None:
    assert refused(tmp_path, files, f"named like splits, and {names} beside them").suggestions


def test_images_outside_all_splits_are_refused(tmp_path: Path) -> None:
    files = grid("01", ["train", "test"]) | grid("2")
    error = refused(tmp_path, files, r"3 images are in no split folder \(test, train\)")
    assert error.suggestions == ("--exclude '2/*'",)


def test_a_train_may_be_a_class(tmp_path: Path) -> None:
    vehicles = ("bus", "car", "train")
    assert opened(tmp_path / "flat", grid(vehicles)).annotations.classes == vehicles
    source = opened(tmp_path / "split", grid(["train", "test"], vehicles))
    assert table(source) == {(c, split): 3 for c in vehicles for split in ("", "test")}


def test_classes_that_training_and_test_do_not_share_are_refused(tmp_path: Path) -> None:
    files = grid(["train"], "ABC") | grid(["test"], "abc")
    error = refused(tmp_path, files, "training and test have no class in common: .*'A', 'B', 'C'")
    assert error.suggestions == ("--exclude 'test/*'",)


def test_a_class_without_training_images_is_refused(tmp_path: Path) -> None:
    files = grid(["train", "test"], "01") | grid(["test"], "2")
    error = refused(tmp_path, files, "no training image of class '2', which test has")
    assert error.suggestions == ("--exclude 'test/2/*'",)


def test_a_class_that_lost_its_training_images_is_named() -> None:
    names = ["a/0.png", "a/1.png", "b/1.png"]
    labels, splits = np.array([0, 0, 1]), np.array([0, 1, 1])
    with pytest.raises(LayoutError, match="no training image of class 'b'") as caught:
        check_split_classes(Path("set"), ("a", "b"), labels, splits, names.__getitem__)
    assert caught.value.suggestions == ("--exclude 'b/*'",)
    check_split_classes(Path("set"), ("a", "b"), labels, np.array([2, 2, 2]))  # to be evaluated


def test_levels_that_both_name_splits_are_refused(tmp_path: Path) -> None:
    files = grid(["train", "test"], "01", ["train", "val"])
    error = refused(tmp_path, files, "several levels of folders are named like splits")
    assert error.suggestions == ("--split-from folder:0", "--split-from folder:2")
    inner = opened(tmp_path / "inner", grid(["train"], ["train", "val"], "01"))
    assert table(inner) == {(c, split): 3 for c in "01" for split in ("train", "validation")}


# Classes and writers


def test_a_level_of_folders_that_may_be_classes_or_writers_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, grid("01", ["anna", "ben"]), "the class may be one of 2 levels")
    assert "folder:0 has 2 names (0, 1); folder:1 has 2 names (anna, ben)" in str(error)
    assert error.suggestions[:3] == (
        "--class-from folder:0 --writer-from folder:1",
        "--class-from folder:1 --writer-from folder:0",
        "--class-from folder:0,1",
    )
    source = opened(tmp_path, {}, error.suggestions[0])
    assert source.annotations.classes == ("0", "1")
    assert source.annotations.writer_names == ("anna", "ben")


def test_an_alphabet_and_its_characters_can_be_one_class(tmp_path: Path) -> None:
    files = grid(["images_background"], ["Greek", "Latin"], ["character01", "character02"])
    error = refused(tmp_path, files, "the class may be one of 2 levels")
    assert "--class-from folder:1,2" in error.suggestions
    source = opened(tmp_path, {}, "--class-from folder:1,2")
    assert source.annotations.classes[0] == "Greek/character01"
    assert len(source.annotations.classes) == 4


@pytest.mark.parametrize(
    "files",
    [
        grid("01", ["writer_01", "writer_02"]),
        grid(["w1", "w2"], "01"),
        grid(["subject-a", "subject-b"], ["images"], "01"),
        grid(["train", "test"], ["person 1", "person 2"], "01"),
    ],
)
def test_folders_named_like_writers_are_writers(tmp_path: Path, files: dict[str, bytes]) -> None:
    source = opened(tmp_path, files)
    assert source.annotations.classes == ("0", "1")
    assert len(source.annotations.writer_names) == 2
    assert source.layout.writer_from.startswith("folder:")


def test_characters_below_other_folders_are_the_classes(tmp_path: Path) -> None:
    source = opened(tmp_path, grid(["anna", "ben"], DIGITS))
    assert source.annotations.classes == DIGITS
    assert source.layout.notes == ("the folders anna, ben are not used",)


def test_nist_sd19_has_characters_and_its_partitions_are_no_classes(tmp_path: Path) -> None:
    files = grid(["by_class"], ["30", "31", "41", "61"], ["hsf_0", "hsf_1"])
    source = opened(tmp_path / "hsf", files)
    assert source.annotations.classes == ("0", "1", "A", "a")
    assert source.annotations.writer_names == ()
    assert (source.layout.class_from, source.layout.dataset) == ("folder:1", "NIST SD19")
    repeated = {f"by_class/{c}/train_{c}/{i}.png": IMAGE for c in ("30", "31") for i in range(4)}
    both = opened(tmp_path / "both", files | repeated)
    assert len(both) == len(source)
    assert both.layout.left_out == {"images that train_… repeats": 8}
    alone = opened(tmp_path / "alone", repeated)
    assert table(alone) == {("0", ""): 4, ("1", ""): 4}


@pytest.mark.parametrize("parents", [["images", "masks"], ["png", "jpg"]])
def test_classes_below_two_containers_are_refused(tmp_path: Path, parents: list[str]) -> None:
    error = refused(tmp_path, grid(parents, ["cat", "dog"]), "below several folders")
    assert f"--include '{parents[0]}/*'" in error.suggestions


@pytest.mark.parametrize(
    "files",
    [
        grid(["cat", "dog", "preview"]),
        grid(["cat", "dog", "dog - Copy"]),
        grid(["cat", "cat (1)", "dog"]),
        grid(["images", "masks"]),
        grid(["train", "test"], ["cat", "dog", "thumbnails"]),
    ],
)
def test_folders_that_are_hardly_classes_are_refused(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    assert refused(tmp_path, files, "are (hardly classes|copies of others)").suggestions


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (grid("01") | {"x.png": IMAGE}, "both in '.' and in '0' below it"),
        (grid(["a", "a/b"]), "both in 'a' and in 'a/b' below it"),
        (grid(["a", "a/b", "c"]), "both in 'a' and in 'a/b' below it"),
        (grid(["a/0", "a/1", "b/2", "c"]), "at different depths of folders, for example in c and"),
        (grid(["train", "test"], ["a", "a/b"]), "both in '(train|test)/a' and in"),
        (grid(["images"], "01") | grid(["images"]), "both in 'images' and in 'images/0' below it"),
    ],
)
def test_classes_at_several_depths_are_refused(
    tmp_path: Path, files: dict[str, bytes], reason: str
) -> None:
    assert refused(tmp_path, files, reason).suggestions


def test_a_folder_for_each_image_is_no_class(tmp_path: Path) -> None:
    files = {f"{c}/{c}{i}/x.png": IMAGE for c in ("cat", "dog") for i in range(5)}
    refused(tmp_path, files, "the class may be one of 2 levels")


def test_classes_grouped_in_folders_have_the_innermost_names(tmp_path: Path) -> None:
    source = opened(tmp_path, grid(["cat/siamese", "cat/persian", "dog/poodle"]))
    assert source.annotations.classes == ("persian", "poodle", "siamese")
    assert source.layout.notes == ("the folders cat, dog are not used",)


def test_names_that_differ_in_spaces_or_normal_form_are_one_class(tmp_path: Path) -> None:
    files = grid(["cat", "cat ", "dog"])
    source = opened(tmp_path / "spaces", files)
    assert table(source) == {("cat", ""): 6, ("dog", ""): 3}
    assert source.layout.warnings == (
        "names that differ in spaces alone are one class: 'cat' and 'cat '",
    )
    forms = [unicodedata.normalize(form, "ä") for form in ("NFC", "NFD")]
    named = {f"{form}/{i}{n}.png": IMAGE for n, form in enumerate(forms) for i in range(3)}
    assert table(opened(tmp_path / "forms", named | grid("b"))) == {("ä", ""): 6, ("b", ""): 3}


def test_classes_that_differ_in_case_are_two_with_a_warning(tmp_path: Path) -> None:
    source = opened(tmp_path / "words", grid(["Cat", "cat"]))
    assert source.annotations.classes == ("Cat", "cat")
    assert source.layout.warnings == ("classes differ in case alone: 'Cat' and 'cat'",)
    assert opened(tmp_path / "letters", grid("Aa")).layout.warnings == ()


# MIDAS part 1 and Chars74K


@pytest.mark.parametrize("stray", ["preview", "Sample001 - Copy", "hand/preview"])
def test_a_folder_beside_the_numbered_ones_is_refused(tmp_path: Path, stray: str) -> None:
    files = {f"hand/Sample00{n}/img00{n}-00{w}.png": IMAGE for n in (1, 2) for w in (1, 2)}
    error = refused(tmp_path, files | grid([stray]), "beside the numbered folders")
    assert error.suggestions[0] == f"--exclude '{stray}/*'"
    source = opened(tmp_path, {}, error.suggestions[0])
    assert (source.kind, source.annotations.classes) == ("midas", ("0", "1"))
    assert source.annotations.writer_names == ("001", "002")


def test_numbered_folders_beyond_the_characters_are_classes_of_their_own(tmp_path: Path) -> None:
    source = opened(tmp_path, grid(["Sample001", "Sample063", "Sample657"]))
    assert source.kind == "folders"
    assert source.annotations.classes == ("Sample001", "Sample063", "Sample657")
    assert "no characters of MIDAS" in source.layout.notes[0]


def test_photos_and_their_masks_are_not_mixed(tmp_path: Path) -> None:
    files = {
        f"English/Img/GoodImg/{kind}/Sample00{n}/img00{n}-0000{i}.png": IMAGE
        for kind in ("Bmp", "Msk")
        for n in (1, 2)
        for i in (1, 2)
    }
    error = refused(tmp_path, files, "below several folders")
    assert error.suggestions[0] == "--include 'English/Img/GoodImg/Bmp/*'"
    source = opened(tmp_path, {}, error.suggestions[0])
    assert source.annotations.classes == ("0", "1")
    assert source.annotations.writer_names == ()
    assert "counters, not writers" in source.layout.notes[-1]


@pytest.mark.parametrize(
    ("name", "writers"),
    [
        ("Sample00{n}/img00{n}-00{i}.png", 2),
        ("English/Hnd/Img/Sample00{n}/img00{n}-00{i}.png", 2),
        ("English/Fnt/Sample00{n}/img00{n}-00{i}.png", 0),
        ("Sample00{n}/img00{n}-0000{i}.png", 0),
    ],
)
def test_three_digits_of_handwriting_are_writers_and_five_are_counters(
    tmp_path: Path, name: str, writers: int
) -> None:
    files = {name.format(n=n, i=i): IMAGE for n in (1, 2) for i in (1, 2)}
    source = opened(tmp_path, files)
    assert source.kind == "midas"
    assert len(source.annotations.writer_names) == writers


# Rules of the user


def test_a_rule_overrides_what_is_inferred_and_the_rest_is_inferred(tmp_path: Path) -> None:
    files = grid(["train", "test"], "01", ["anna", "ben"])
    source = opened(tmp_path, files, "--class-from folder:-1")
    assert table(source) == {(c, s): 6 for c in ("anna", "ben") for s in ("", "test")}
    source = opened(tmp_path, {}, "--class-from folder:0 --writer-from 'name:(anna|ben)'")
    assert source.annotations.classes == ("test", "train")
    assert source.annotations.writer_names == ("anna", "ben")
    assert (source.annotations.splits == NO_SPLIT).all()
    source = opened(tmp_path, {}, "--writer-from folder:2")
    assert source.annotations.classes == ("0", "1")


def test_what_the_layout_reports_can_be_given_as_rules(tmp_path: Path) -> None:
    for number, files in enumerate(
        (
            grid(["train"], "01") | grid(["test"]),
            grid(["test"], "01") | grid(["train"]),
            grid("012", ["train", "test"]),
            grid(["set"], ["train", "test"], ["images"], ["w1", "w2"], "01"),
            grid(["by_class"], ["30", "41"], ["hsf_0", "hsf_1"]),
            {f"x/Sample00{n}/img00{n}-00{w}.png": IMAGE for n in (1, 2) for w in (1, 2)},
        )
    ):
        inferred = opened(tmp_path / str(number), files)
        layout = inferred.layout
        rules = {"class": layout.class_from, "split": layout.split_from}
        rules["writer"] = layout.writer_from
        words = " ".join(f"--{k}-from {shlex.quote(v)}" for k, v in rules.items() if v)
        told = opened(tmp_path / str(number), {}, words)
        assert table(told) == table(inferred)
        assert told.annotations.writers.tolist() == inferred.annotations.writers.tolist()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--class-from folder:2", "folder:2 gives no image a class"),
        ("--class-from 'name:(x)'", "gives no image a class"),
        ("--class-from 'name:0/([01])[.]'", "gives no class to 8 of 12 images"),
        ("--split-from folder:1", "gives '0', '1' as the split of 12 images"),
        ("--split-from 'name:(test)'", "gives 'nothing' as the split of 6 images"),
        ("--writer-from folder:7", "gives no image a writer"),
        ("--exclude nothing", "--exclude 'nothing' matches no file"),
        ("--include 'a/*'", "--include 'a/\\*' matches no file"),
        ("--exclude '*'", "leave no images"),
        ("--class-from table:labels.csv", "labels.csv"),
    ],
)
def test_rules_that_do_not_apply_are_refused(tmp_path: Path, words: str, reason: str) -> None:
    refused(tmp_path, grid(["train", "test"], "01"), reason, words)


def test_rules_see_names_in_their_normal_form(tmp_path: Path) -> None:
    folder = unicodedata.normalize("NFD", "ä")
    source = opened(tmp_path, grid([folder, "b"]), "--class-from 'name:^(ä|b)/'")
    assert source.annotations.classes == ("b", "ä")


def test_excluded_files_are_counted(tmp_path: Path) -> None:
    source = opened(tmp_path, grid("012") | {"2/x.txt": b"x"}, "--exclude 2")
    assert table(source) == {("0", ""): 3, ("1", ""): 3}
    assert source.layout.left_out == {"excluded by option": 4}


# Tables


def csv(labels: Mapping[str, str]) -> bytes:
    return "\n".join(["file,label", *(f"{k},{v}" for k, v in labels.items())]).encode()


def test_a_table_gives_the_classes_that_folders_do_not(tmp_path: Path) -> None:
    labels = {f"{i}.png": "ab"[i % 2] for i in range(6)}
    files = dict.fromkeys((f"images/{name}" for name in labels), IMAGE)
    source = opened(tmp_path, files | {"labels.csv": csv(labels)})
    assert table(source) == {("a", ""): 3, ("b", ""): 3}
    assert source.layout.class_from == "table:labels.csv"
    assert source.kind == "files"
    assert source.layout.left_out == {}
    assert source.layout.left_out == {}
    digest = source.digest()
    changed = csv({**labels, "0.png": "b"})
    assert opened(tmp_path, {"labels.csv": changed}).digest() != digest
    assert opened(tmp_path, {"labels.csv": csv(labels)}).digest() == digest
    assert opened(tmp_path, {}, "--writer-from 'name:([0-2])'").digest() != digest


def test_a_table_labels_the_test_images_that_folders_leave_unlabelled(tmp_path: Path) -> None:
    labels = {name: name.split("/")[1] for name in grid(["train"], "01")}
    labels |= {f"test/{i}.png": "01"[i % 2] for i in range(4)}
    files = dict.fromkeys(labels, IMAGE)
    source = opened(tmp_path / "all", files | {"labels.csv": csv(labels)})
    assert table(source) == {(c, ""): 3 for c in "01"} | {(c, "test"): 2 for c in "01"}
    swapped = {**labels, "train/0/0.png": "1"}
    refused(tmp_path / "other", files | {"labels.csv": csv(swapped)}, "give different classes")


def test_a_table_gives_the_classes_where_all_images_are_in_one_folder(tmp_path: Path) -> None:
    files = {f"pages-2/{i}.png": IMAGE for i in range(6)}
    labels = csv({name: "ab"[i % 2] for i, name in enumerate(files)})
    source = opened(tmp_path / "clear", files | {"labels.csv": labels})
    assert table(source) == {("a", ""): 3, ("b", ""): 3}
    unclear = "\n".join(f"{n},{i % 2},{i % 3}" for i, n in enumerate(files))
    unclear = f"path,one,other\n{unclear}"
    refused(tmp_path / "unclear", files | {"t.csv": unclear.encode()}, "no column that is clearly")


def test_names_of_files_give_the_split_if_each_begins_with_one(tmp_path: Path) -> None:
    files = {f"{c}/{part}_{i}.png": IMAGE for c in "01" for part in ("Train", "test") for i in "12"}
    source = opened(tmp_path / "all", files)
    assert table(source) == {(c, split): 2 for c in "01" for split in ("", "test")}
    given = opened(tmp_path / "all", files, f"--split-from {shlex.quote(source.layout.split_from)}")
    assert table(given) == table(source)
    for other in ("0/5.png", "train/train_9.png"):
        some = dict.fromkeys(("train/train_1.png", "car/train_1.png", other), IMAGE)
        assert not opened(tmp_path / other[0], some).layout.split_from


def test_a_table_that_contradicts_the_folders_is_refused(tmp_path: Path) -> None:
    files = grid(["cat", "dog"])
    agreeing = csv({name: name[0] for name in files})
    source = opened(tmp_path / "agreeing", files | {"labels.csv": agreeing})
    assert source.annotations.classes == ("cat", "dog")
    assert source.layout.notes == ("labels.csv also names labels; folders give the classes",)
    other = csv({name: name[-5] for name in files})
    error = refused(tmp_path / "other", files | {"labels.csv": other}, "give different classes")
    assert error.suggestions == ("--class-from table:labels.csv", "--class-from folder:-1")


# Files


JPEG = saved(Image.new("L", (5, 7), 9), "JPEG")


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG", "", ".unknown", ".2"])
def test_contents_decide_where_the_suffix_does_not(tmp_path: Path, suffix: str) -> None:
    files = grid("0") | {f"1/{i}{suffix}": JPEG for i in range(3)} | {"1/notes": b"words"}
    source = opened(tmp_path, files)
    assert table(source) == {("0", ""): 3, ("1", ""): 3}
    assert source.image(4).shape == (7, 5)
    assert source.layout.left_out == {"files without suffix": 1}


def test_a_folder_of_drawings_beside_the_classes_is_refused(tmp_path: Path) -> None:
    files = grid("01") | {"2/a.eps": b"%!PS", "2/b.svg": b"<svg/>"}
    error = refused(tmp_path, files, "the folders 2 hold no image that can be decoded")
    assert error.suggestions == ("--exclude '2/*'",)


def test_pages_under_another_suffix_are_never_dropped_in_silence(tmp_path: Path) -> None:
    frame = Image.new("L", (5, 7))
    pages = saved(frame, "TIFF", save_all=True, append_images=[frame])
    source = opened(tmp_path, grid("01") | {"0/x.png": pages})
    with pytest.raises(ImageError, match=r"a TIFF file of 2 pages; rename it to \.tif"):
        source.image([source.name(i) for i in range(len(source))].index("0/x.png"))


def test_each_page_of_a_tiff_is_an_image_of_one_group(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), grey) for grey in (10, 20, 30)]
    several = saved(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    source = opened(tmp_path, {"a/x.tif": several, "a/y.png": IMAGE, "b/z.tif": several})
    names = [source.name(i) for i in range(len(source))]
    assert names == [
        *("a/x.tif#1", "a/x.tif#2", "a/x.tif#3", "a/y.png"),
        *("b/z.tif#1", "b/z.tif#2", "b/z.tif#3"),
    ]
    assert [int(source.image(i).max()) for i in (0, 1, 2)] == [10, 20, 30]
    assert source.annotations.labels.tolist() == [0] * 4 + [1] * 3
    assert source.groups is not None
    assert source.groups.tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert source.size(np.arange(3)) == len(several)


# Properties

JUNK = ("__MACOSX/0/._x.png", ".ipynb_checkpoints/0/a.png", "0/Thumbs.db", "0/._0.png", "notes.txt")
words = st.text(string.ascii_lowercase, min_size=3, max_size=6).map("q{}".format)
trees = st.builds(
    grid,
    st.sampled_from((["train", "test"], ["train", "val", "test"], ["set"])),
    st.lists(words, min_size=2, max_size=3, unique=True),
    count=st.integers(1, 2),
)


@given(files=trees, wrappers=st.lists(words, max_size=2), junk=st.lists(st.sampled_from(JUNK)))
@settings(max_examples=25)
def test_wrappers_junk_and_zipping_change_no_label(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, bytes],
    wrappers: list[str],
    junk: list[str],
) -> None:
    folder = tmp_path_factory.mktemp("set")
    expected = opened(folder / "plain", files)
    top = "".join(f"{name}/" for name in wrappers)
    wrapped = {f"{top}{name}": data for name, data in files.items()}
    added = wrapped | {f"{top}{name}": b"x" for name in junk}
    make: Callable[..., Path]
    for make, name in ((make_tree, "tree"), (make_zip, "a.zip")):
        source = open_source(make(folder / name, added))
        assert table(source) == table(expected)
        assert source.annotations.labels.tolist() == expected.annotations.labels.tolist()
        assert source.annotations.splits.tolist() == expected.annotations.splits.tolist()


@given(
    names=st.lists(
        st.lists(
            st.sampled_from(("train", "test", "0", "1", "a", "Sample001", "images", "w1", "hsf_0")),
            max_size=3,
        ).map("/".join),
        min_size=1,
        max_size=6,
        unique=True,
    )
)
@settings(max_examples=40)
def test_any_tree_is_read_or_refused_with_options_that_work(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("set")
    files = {f"{name}/{i}.png".lstrip("/"): IMAGE for name in names for i in range(2)}
    path = make_tree(folder / "set", files)
    found = outcome(path, "")
    if isinstance(found, LayoutError):
        for suggestion in found.suggestions:
            follow(path, suggestion)
    else:
        assert isinstance(found, Source) or "got one class" in str(found)


def test_a_class_name_of_several_lines_becomes_one_line(tmp_path: Path) -> None:
    images = {f"{i}.png": picture(i) for i in range(4)}
    table = b'file,label\n0.png,"a\nb"\n1.png,"a b"\n2.png,c\n3.png,c\n'
    source = open_source(make_tree(tmp_path, images | {"labels.csv": table}))
    assert source.annotations.classes == ("a b", "c")
    assert source.annotations.labels.tolist() == [0, 0, 1, 1]


def test_counters_in_file_names_are_not_suggested_beside_words(tmp_path: Path) -> None:
    names = [f"{animal}.{i}.png" for animal in ("cat", "dog") for i in range(6)]
    error = refused(tmp_path, {name: picture(i) for i, name in enumerate(names)}, "gives a class")
    [suggestion] = error.suggestions
    options = LayoutOptions.parse(class_from=shlex.split(suggestion)[1])
    assert open_source(tmp_path, options).annotations.classes == ("cat", "dog")
