"""Layouts of archives that people publish: tables and lists beside folders, parts and copies."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from raw_data import digits, idx_pair, make_zip, picture
from test_layout_inference import grid, opened, parse, refused, table

from pipeline.data.base import ImageError, SourceError
from pipeline.data.pixels.image_decoder import decode
from pipeline.data.sources import open_source

IMAGE = picture(0)


def rows(*lines: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()


def given(classes: Iterable[str], test: int, train: int) -> dict[tuple[str, str], int]:
    return {(c, s): n for c in classes for s, n in (("test", test), ("", train))}


# Splits and labels from tables beside folders of classes


FOLDERS = grid("ab", count=6)
LABELLED = ("path", "label", "split")
SPLIT_OF = {name: "test" if name[2] in "45" else "train" for name in FOLDERS}


def of(name: str, split: str) -> bool:
    return SPLIT_OF[name] == split


@pytest.mark.parametrize(
    "tables",
    [
        {"metadata.csv": rows(LABELLED, *((n, n[0], s) for n, s in SPLIT_OF.items()))},
        {"split.csv": rows(("path", "split"), *SPLIT_OF.items())},
        {
            f"{split}.csv": rows(LABELLED[:2], *((n, n[0]) for n in FOLDERS if of(n, split)))
            for split in ("train", "test")
        },
        {
            f"meta/{split}.txt": "\n".join(n for n in FOLDERS if of(n, split)).encode()
            for split in ("train", "test")
        },
        {
            f"{split}_list.txt": "\n".join(n[:-4] for n in FOLDERS if of(n, split)).encode()
            for split in ("train", "test")
        },
    ],
)
def test_tables_and_lists_split_the_images_of_folders(
    tmp_path: Path, tables: dict[str, bytes]
) -> None:
    source = opened(tmp_path, FOLDERS | tables)
    assert table(source) == given("ab", 2, 4)
    assert source.layout.split_from == f"table:{','.join(sorted(tables))}"
    assert source.layout.left_out == {}
    rule = f"--split-from {source.layout.split_from}"
    assert table(open_source(source.path, parse(rule))) == given("ab", 2, 4)


def test_a_list_that_lacks_images_is_refused_or_excluded(tmp_path: Path) -> None:
    lists = {"train.txt": b"a/0.png\na/1.png\nb/0.png\nb/1.png\na/2.png", "test.txt": b"a/4.png"}
    error = refused(tmp_path, FOLDERS | lists, "gives 'nothing' as the split of 6 images")
    assert error.suggestions == ("--exclude test.txt --exclude train.txt",)


def test_folds_that_divide_images_in_several_ways_are_refused_with_each_choice(
    tmp_path: Path,
) -> None:
    names = list(FOLDERS)
    folds = {
        f"fold-{k}/{split}.csv": rows(
            ("path", "label"),
            *((n, n[0]) for i, n in enumerate(names) if (i % 2 == k) == (split == "test")),
        )
        for k in (0, 1)
        for split in ("train", "test")
    }
    error = refused(tmp_path, FOLDERS | folds, "different splits for one image")
    assert error.suggestions[0] == "--split-from table:fold-0/test.csv,fold-0/train.csv"
    assert len(error.suggestions) == 3


def test_a_file_that_may_define_splits_and_cannot_is_a_warning(tmp_path: Path) -> None:
    source = opened(tmp_path, FOLDERS | {"train_test_split.txt": b"1 0\n2 1\n"})
    assert source.layout.warnings == ("train_test_split.txt may define splits, and is not used",)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("test.csv", b"file,label\n0.png,a\n1.png,b\n2.png,a\n"),
        ("Test.csv", b"Width,Path,ClassId\n5,test/0.png,a\n5,test/1.png,b\n5,test/2.png,a\n"),
        ("test/labels.txt", b"0.png a\n1.png b\n2.png a\n"),
        ("test.tsv", b"0.png\ta\t0\t5\n1.png\tb\t1\t5\n2.png\ta\t0\t6\n"),
    ],
)
def test_a_table_labels_the_test_images_that_no_folder_does(
    tmp_path: Path, name: str, text: bytes
) -> None:
    files = grid(["train"], "ab", count=4) | grid(["test"])
    source = opened(tmp_path, files | {name: text})
    assert table(source) == {("a", ""): 4, ("b", ""): 4, ("a", "test"): 2, ("b", "test"): 1}
    assert source.layout.class_from == f"folder:1, table:{name}"


def test_a_table_about_test_images_without_their_classes_is_not_used(tmp_path: Path) -> None:
    files = grid(["train"], "ab", count=4) | grid(["test"])
    source = opened(tmp_path, files | {"test.csv": b"id,age,city\n0,20,x\n1,21,y\n2,20,x\n"})
    assert table(source) == {("a", ""): 4, ("b", ""): 4}
    assert source.layout.left_out["unlabelled images of test"] == 3


def test_numbers_in_the_table_are_the_folders_that_it_also_names(tmp_path: Path) -> None:
    files = grid(["train"], ["cat", "dog"], count=4) | grid(["test"], count=2)
    labels = [(n, int("dog" in n)) for n in files if "train" in n]
    text = rows(("path", "label"), *labels, ("test/0.png", 0), ("test/1.png", 1))
    source = opened(tmp_path, files | {"labels.csv": text})
    assert table(source)["cat", "test"] == table(source)["dog", "test"] == 1


def test_a_label_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    files = grid(["train"], "ab", count=4) | grid(["test"], count=4)
    text = b"file,label\n0.png,a\n1.png,b\n2.png,c\n3.png,a\n"
    refused(tmp_path, files | {"test.csv": text}, "'c', which is no class of the folders")


def test_one_folder_of_images_is_no_class_beside_a_table(tmp_path: Path) -> None:
    files = grid(["hasy-data"], count=6)
    labels = [(name, i % 2, "ab"[i % 2]) for i, name in enumerate(files)]
    text = rows(("path", "symbol_id", "latex"), *labels)
    error = refused(tmp_path, files | {"labels.csv": text}, "no column that is clearly the label")
    assert error.suggestions == ("--columns label=symbol_id", "--columns label=latex")
    text = rows(("Bild", "Klasse"), *((n, "ab"[i % 2]) for i, n in enumerate(files)))
    assert table(opened(tmp_path / "b", files | {"Liste.csv": text})) == {
        ("a", ""): 3,
        ("b", ""): 3,
    }


def test_a_table_of_a_folders_name_names_its_images(tmp_path: Path) -> None:
    files = grid(["training-a", "training-b", "testing-a"], count=6)
    tables = {
        f"training-{part}.csv": rows(
            ("filename", "digit"), *((f"{i}.png", i % 3) for i in range(6))
        )
        for part in "ab"
    }
    source = opened(tmp_path, files | tables)
    assert table(source) == {(c, ""): 4 for c in "012"}
    assert source.layout.left_out == {"unlabelled images of testing-a": 6}


# Folders


def test_parts_of_a_split_are_the_split(tmp_path: Path) -> None:
    files = grid(["train_1", "train_2", "test"], "ab")
    assert table(opened(tmp_path, files)) == given("ab", 3, 6)


def test_the_size_of_arrays_says_nothing_in_a_folders_name(tmp_path: Path) -> None:
    names = [f"Train Images 13440x32x32/train/id_{i}_label_{i % 2}.png" for i in range(18)]
    names += [f"Test Images 3360x32x32/test/id_{i}_label_{i % 2}.png" for i in range(12)]
    error = refused(tmp_path, dict.fromkeys(names, IMAGE), "nothing gives the class")
    for suggestion in error.suggestions:
        assert table(opened(tmp_path, {}, suggestion)) == given("01", 6, 9)


def test_folds_are_no_classes(tmp_path: Path) -> None:
    source = opened(tmp_path, grid(["fold1", "fold2", "fold3"], ["cat", "dog"]))
    assert table(source) == {("cat", ""): 9, ("dog", ""): 9}
    assert source.annotations.writer_names == ()


def test_augmented_copies_are_no_classes(tmp_path: Path) -> None:
    error = refused(tmp_path, grid(["cat", "cat_aug", "dog"]), "copies of others")
    assert error.suggestions[0] == "--exclude 'cat_aug/*'"


def test_inner_levels_are_suggested_together(tmp_path: Path) -> None:
    levels = (["images_background", "images_evaluation"], ["Greek", "Latin"], ["c01", "c02"])
    error = refused(tmp_path, grid(*levels), "one of 3 levels")
    assert "--class-from folder:1,2" in error.suggestions


def test_a_folder_of_unknown_files_beside_the_classes_is_a_warning(tmp_path: Path) -> None:
    source = opened(tmp_path, grid("ab") | {"c/0.dat": b"junk"})
    assert source.layout.warnings == ("folders beside those of classes hold no image: c",)


@pytest.mark.parametrize("pattern", ["{i:03}_{c}", "img{i:03}_label{c}", "all/{c}_{i:03}"])
def test_each_place_of_a_label_in_file_names_is_suggested(tmp_path: Path, pattern: str) -> None:
    files = {f"{pattern.format(i=i, c=i % 2)}.png": IMAGE for i in range(12)}
    error = refused(tmp_path, files, "gives a class|got one class")
    found = [table(opened(tmp_path, {}, suggestion)) for suggestion in error.suggestions]
    assert {("0", ""): 6, ("1", ""): 6} in found


# Options and files without use


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (grid("ab"), "--columns label=x"),
        (grid("ab"), "--shape 28x28"),
        (idx_pair("train", *digits(8), packed=False), "--class-from folder:0"),
        (idx_pair("train", *digits(8), packed=False), "--split-from 'name:(train)'"),
        (idx_pair("train", *digits(8), packed=False), "--writer-from folder:0"),
        (idx_pair("train", *digits(8), packed=False), "--columns label=x"),
        (idx_pair("train", *digits(8), packed=False), "--shape 2x98"),
    ],
)
def test_an_option_without_effect_is_refused(
    tmp_path: Path, files: Mapping[str, bytes], words: str
) -> None:
    with pytest.raises(
        SourceError, match=f"{words.split()[0]}.* (would have no effect|is for image files)"
    ):
        opened(tmp_path, files, words)


def test_a_level_of_folders_counts_once() -> None:
    with pytest.raises(SourceError, match="got a level twice"):
        parse("--class-from folder:0,0")


@pytest.mark.parametrize("columns", ["label=kind", "file=x,label=label"])
def test_a_column_that_rows_of_pixels_lack_is_refused(tmp_path: Path, columns: str) -> None:
    header = ("label", *(f"pixel{i}" for i in range(16)))
    text = rows(header, *((i % 2, *range(i, 256, 16)) for i in range(8)))
    assert len(opened(tmp_path, {"train.csv": text})) == 8
    with pytest.raises(SourceError, match=r"has no column 'kind'|--columns file=… would"):
        opened(tmp_path, {}, f"--columns {columns}")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x80\x04\x95", "a pickle"),
        (b"PK\x03\x04", "packed itself"),
        (b"\x1f\x8b\x08", "packed itself"),
    ],
)
def test_a_file_that_is_not_read_is_named_with_its_kind(
    tmp_path: Path, data: bytes, kind: str
) -> None:
    with pytest.raises(SourceError, match=f"data/all is {kind}"):
        open_source(make_zip(tmp_path / "a.zip", {"README.md": b"x", "data/all": data}))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS"),
        (b"\n<!DOCTYPE html><title>404", "web page"),
    ],
)
def test_a_pointer_or_web_page_in_an_images_place_is_named(data: bytes, kind: str) -> None:
    with pytest.raises(ImageError, match=kind):
        decode(data)


# Several forms of the same images


def test_samples_of_splits_are_not_added_to_them(tmp_path: Path) -> None:
    files = grid(["trainingSet/trainingSet"], "01", count=5) | grid(["testSet"])
    files |= grid(["trainingSample/trainingSample"], "01", count=2) | grid(["testSample"])
    error = refused(tmp_path, files, "several sets of splits")
    sample = "--exclude 'testSample/*' --exclude 'trainingSample/*'"
    assert sample in error.suggestions
    assert table(opened(tmp_path, {}, sample)) == {("0", ""): 5, ("1", ""): 5}


@pytest.mark.parametrize(
    "parents", [["original", "resized"], ["28x28", "56x56"], ["digits", "digits - Copy"]]
)
def test_versions_of_the_same_images_are_not_mixed(tmp_path: Path, parents: list[str]) -> None:
    error = refused(tmp_path / "a", grid(parents, "0123456789"), "below several folders")
    assert f"--include '{parents[0]}/*'" in error.suggestions
    splits = grid(["train", "test"], parents, "0123456789")
    error = refused(tmp_path / "b", splits, "below several folders")
    both = f"--include 'test/{parents[0]}/*' --include 'train/{parents[0]}/*'"
    assert table(opened(tmp_path / "b", {}, both)) == given("0123456789", 3, 3)


@pytest.mark.parametrize("name", ["{i}_mask", "{i}-thumb", "thumb_{i}", "{i} copy"])
def test_masks_and_thumbnails_beside_the_images_are_no_images(tmp_path: Path, name: str) -> None:
    files = {f"{c}/{name.format(i=i)}.jpg": IMAGE for c in "ab" for i in range(3)}
    error = refused(tmp_path, files | grid("ab"), "6 images are named as companions")
    assert table(opened(tmp_path, {}, error.suggestions[0])) == {("a", ""): 3, ("b", ""): 3}
    assert table(opened(tmp_path / "alone", files)) == {("a", ""): 3, ("b", ""): 3}


# Writers


@pytest.mark.parametrize("fields", ["d", "dlu"])
def test_the_pages_of_nists_writers_are_no_classes(tmp_path: Path, fields: str) -> None:
    files = {
        f"by_write/hsf_0/f000{w}_14/{c}000{w}_14/{c}000{w}_14_{i:05}.png": IMAGE
        for w in range(3)
        for c in fields
        for i in range(3)
    }
    refused(tmp_path, files, "the class may be one of")


@pytest.mark.parametrize(
    "folders",
    [["hsf_page/hsf_0", "hsf_page/hsf_1"], ["f0000_14/d0000_14", "f0000_14/u0000_14"]],
)
def test_parts_of_nist_alone_are_no_classes(tmp_path: Path, folders: list[str]) -> None:
    refused(tmp_path, grid(folders), "are named like writers")


def test_folders_of_writers_alone_are_no_classes(tmp_path: Path) -> None:
    files = {f"writer{w}/{c}_{i}.png": IMAGE for w in range(3) for c in "0123" for i in range(2)}
    error = refused(tmp_path, files, "are named like writers")
    source = opened(tmp_path, {}, error.suggestions[0])
    assert source.annotations.classes == ("0", "1", "2", "3")
    assert source.annotations.writer_names == ("writer0", "writer1", "writer2")


# Classes and tables


def test_classes_that_are_the_same_number_are_two_with_a_warning(tmp_path: Path) -> None:
    source = opened(tmp_path, grid(["01", "1", "2"]))
    assert source.layout.warnings == ("classes are the same number: '01' and '1'",)


def test_a_split_whose_table_gives_several_labels_is_not_left_out(tmp_path: Path) -> None:
    files = grid(["train", "valid", "test"])
    for name in ("train", "valid", "test"):
        several = int(name == "train")
        lines = ((f"{i}.png", several or i % 2, several or 1 - i % 2) for i in range(3))
        files[f"{name}/_classes.csv"] = rows(("filename", " cat", " dog"), *lines)
    refused(tmp_path, files, "train/_classes.csv gives several labels to one image")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([f"feature_{i}" for i in range(64)], "expected IDX files"),
        ([*"abcdefghijklmnop"], "expected IDX files"),
        ([f"pixel{i}" for i in range(3 * 28 * 28)], "may be the colours of 28×28 pixels"),
    ],
)
def test_columns_that_are_no_grey_levels_are_refused(
    tmp_path: Path, names: list[str], reason: str
) -> None:
    text = rows(("label", *names), *((i % 2, *[i % 7] * len(names)) for i in range(8)))
    with pytest.raises(SourceError, match=reason):
        opened(tmp_path, {"train.csv": text})


def test_a_shape_is_not_suggested_for_values_beyond_a_byte(tmp_path: Path) -> None:
    header = ("label", *(f"v{i}" for i in range(24)))
    text = rows(header, *((i % 2, *range(500, 524)) for i in range(8)))
    with pytest.raises(SourceError, match="expected IDX files"):
        opened(tmp_path, {"train.csv": text})


def test_a_table_may_name_the_folders_of_numbers_without_zeros(tmp_path: Path) -> None:
    files = grid(["Final_Training"], ["00000", "00001"], count=4) | grid(["Final_Test"], count=4)
    text = b"Filename;Width;ClassId\n0.png;5;0\n1.png;5;1\n2.png;6;1\n3.png;6;1\n"
    source = opened(tmp_path, files | {"GT-final_test.csv": text})
    assert table(source)["00000", "test"] == 1
    assert table(source)["00001", "test"] == 3
