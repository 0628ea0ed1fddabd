"""Labels, splits and writers of image files from tables."""

import csv
import io
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.data.archives import Archive
from pipeline.data.base import LayoutError
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.layout.suggestions import infer_layout
from pipeline.data.layout.tables import TableMatch, find_table, read_table

LETTERS = "ABAB"


class Members(Archive):
    """An archive in memory."""

    def __init__(self, files: Mapping[str, str | bytes]) -> None:
        self.path = Path("source")
        self.data = {n: d.encode() if isinstance(d, str) else d for n, d in sorted(files.items())}
        self.names = list(self.data)
        self.sizes = [len(d) for d in self.data.values()]

    def read(self, index: int) -> bytes:
        return self.data[self.names[index]]

    def head(self, index: int, size: int) -> bytes:
        return self.data[self.names[index]][:size]

    def digest(self, indices: Sequence[int]) -> str:
        raise NotImplementedError

    def open(self, index: int) -> io.BytesIO:
        return io.BytesIO(self.data[self.names[index]])


def images_of(archive: Members) -> list[str]:
    return [name for name in archive.names if name.endswith((".png", ".jpg"))]


def members(names: Sequence[str], **tables: str | bytes) -> Members:
    """Images, and tables whose names have __ for / and _dot_ for the dot."""
    renamed = {n.replace("__", "/").replace("_dot_", "."): t for n, t in tables.items()}
    return Members(dict.fromkeys(names, b"") | renamed)


def find(archive: Members, **options: str) -> TableMatch | None:
    return find_table(archive, images_of(archive), LayoutOptions.parse(**options))  # type: ignore[arg-type]


def labels(archive: Members, **options: str) -> list[str | None]:
    match = find(archive, **options)
    assert match is not None
    return match.labels


def read(file: str, archive: Members, **options: str) -> TableMatch:
    parsed = LayoutOptions.parse(**options)  # type: ignore[arg-type]
    return read_table(file, archive, images_of(archive), parsed)


def refusal(archive: Members, **options: str) -> LayoutError:
    with pytest.raises(LayoutError) as raised:
        find(archive, **options)
    assert "\n" not in str(raised.value)
    return raised.value


FOUR = ["a.png", "b.png", "c.png", "d.png"]


def rows_of(names: Sequence[str], delimiter: str = ",", header: str = "file,label") -> str:
    rows = [header.replace(",", delimiter), *map(delimiter.join, zip(names, LETTERS, strict=True))]
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiter_line_end_and_encoding_are_found(delimiter: str, end: str, encoding: str) -> None:
    text = rows_of(FOUR, delimiter).replace("\n", end)
    match = find(members(FOUR, labels_dot_csv=text.encode(encoding)))
    assert match is not None
    assert match.labels == list(LETTERS)
    assert match.file == "labels.csv"
    assert not match.warnings


def test_latin_1_is_read_with_a_warning() -> None:
    names = ["ä.png", "b.png", "c.png", "d.png"]
    match = find(members(names, labels_dot_csv=rows_of(names).encode("latin-1")))
    assert match is not None
    assert sorted(map(str, match.labels)) == ["A", "A", "B", "B"]
    assert "Latin-1" in match.warnings[0]


def test_names_in_nfd_are_the_names_in_nfc() -> None:
    names = ["a\u0308.png", "b.png", "c.png", "d.png"]
    archive = members(sorted(["\u00e4.png", *names[1:]]), labels_dot_csv=rows_of(names))
    assert labels(archive) == ["B", "A", "B", "A"]


@pytest.mark.parametrize(
    "header", ["id,label", "Image Name,Class Label", "filename,y", "fn,lbl", "image_id,species"]
)
def test_columns_are_known_by_name_or_found_by_their_values(header: str) -> None:
    assert labels(members(FOUR, train_dot_csv=rows_of(FOUR, header=header))) == list(LETTERS)


def test_kaggles_ids_without_suffix_or_zeros_name_images() -> None:
    names = [f"train/{i:04}.png" for i in range(1, 5)]
    for ids in (["0001", "0002", "0003", "0004"], ["1", "2", "3", "4"]):
        assert labels(members(names, train_dot_csv=rows_of(ids, header="id,label"))) == list(
            LETTERS
        )


def test_the_same_names_in_train_and_test_are_those_of_the_table_with_that_name() -> None:
    names = [f"{split}/{i}.png" for split in ("test", "train") for i in range(4)]
    text = rows_of(["0", "1", "2", "3"], header="id,label")
    assert labels(members(names, train_dot_csv=text)) == [None] * 4 + list(LETTERS)


def test_a_name_in_two_folders_is_ambiguous_until_one_is_excluded() -> None:
    names = [f"{split}/{i}.png" for split in ("test", "train") for i in range(4)]
    text = rows_of(["0", "1", "2", "3"], header="id,label")
    error = refusal(members(names, labels_dot_csv=text))
    assert error.suggestions == ("--exclude 'test/*'", "--exclude 'train/*'")
    assert labels(members(names[4:], labels_dot_csv=text)) == list(LETTERS)


def test_sample_submission_never_gives_labels() -> None:
    names = [f"{split}/{split}{i}.png" for split in ("test", "train") for i in range(4)]
    train = rows_of([f"train{i}" for i in range(4)], header="id,label")
    other = rows_of([f"test{i}" for i in range(4)], header="id,label")
    archive = members(names, train_dot_csv=train, sample_submission_dot_csv=other)
    match = find(archive)
    assert match is not None
    assert match.file == "train.csv"
    assert match.labels[:4] == [None] * 4
    assert find(members(names, sample_submission_dot_csv=other)) is None
    constant = other.replace(",A", ",0").replace(",B", ",0")
    assert find(members(names, answers_dot_csv=constant)) is None


def test_labels_stay_as_they_are_written() -> None:
    text = "file,label\na.png,007\nb.png,7\nc.png,1e3\nd.png,NA\n"
    match = find(members(FOUR, labels_dot_csv=text))
    assert match is not None
    assert match.labels == ["007", "7", "1e3", "NA"]
    assert "'NA'" in match.warnings[0]


def test_whole_numbers_that_pandas_wrote_as_floats_lose_the_fraction() -> None:
    text = "file,label\na.png,3.0\nb.png,\nc.png,7.0\nd.png,3\n"
    match = find(members(FOUR, labels_dot_csv=text))
    assert match is not None
    assert match.labels == ["3", None, "7", "3"]
    assert any(".0" in note for note in match.notes)
    assert any("1 images have a row without label" in note for note in match.notes)
    mixed = text.replace("7.0", "7.5")
    assert labels(members(FOUR, labels_dot_csv=mixed)) == ["3.0", None, "7.5", "3"]


def test_a_quotation_mark_is_a_label_escaped_or_not() -> None:
    for mark in ('"', '""""'):
        text = f"file,label\na.png,{mark}\nb.png,A\nc.png,{mark}\nd.png,A\n"
        assert labels(members(FOUR, labels_dot_csv=text)) == ['"', "A", '"', "A"]


def test_quoted_delimiters_and_line_ends_stay_in_their_cell() -> None:
    text = 'file,label,note\na.png,",","two\nlines"\nb.png,A,\nc.png,",",\nd.png,A,\n'
    assert labels(members(FOUR, labels_dot_csv=text)) == [",", "A", ",", "A"]


def test_a_row_with_more_cells_than_the_header_is_refused() -> None:
    text = "file,label\na.png,,\nb.png,A\nc.png,B\nd.png,A\n"
    assert "row 1 has 3 cells, expected 2" in str(refusal(members(FOUR, labels_dot_csv=text)))


def test_a_table_without_header_is_read_where_one_column_names_images() -> None:
    text = rows_of(FOUR).partition("\n")[2]
    assert labels(members(FOUR, labels_dot_csv=text)) == list(LETTERS)
    assert labels(members(FOUR, val_dot_txt=text.replace(",", " "))) == list(LETTERS)
    digits = [f"{i}.png" for i in range(10)]
    both = "".join(f"{i},{9 - i}\n" for i in range(10))
    error = refusal(members(digits, labels_dot_csv=both))
    assert error.suggestions == ("--columns file=1", "--columns file=2")
    assert labels(members(digits, labels_dot_csv=both), columns="file=2") == list("9876543210")


def test_two_label_columns_are_ambiguous_unless_they_name_the_same_classes() -> None:
    text = "file,label,word\na.png,1,x\nb.png,2,y\nc.png,1,y\nd.png,2,x\n"
    error = refusal(members(FOUR, labels_dot_csv=text))
    assert error.suggestions == ("--columns label=label", "--columns label=word")
    for suggestion, right in zip(error.suggestions, ("1212", "xyyx"), strict=True):
        columns = shlex.split(suggestion)[1]
        assert labels(members(FOUR, labels_dot_csv=text), columns=columns) == list(right)
    same = "file,label,class_name\na.png,1,x\nb.png,2,y\nc.png,1,x\nd.png,2,y\n"
    assert labels(members(FOUR, labels_dot_csv=same)) == list("xyxy")


def test_columns_of_no_known_name_are_refused_with_the_options_that_choose_one() -> None:
    text = "file,colour,shape\na.png,1,x\nb.png,2,y\nc.png,1,y\nd.png,2,x\n"
    error = refusal(members(FOUR, labels_dot_csv=text))
    assert error.suggestions == ("--columns label=colour", "--columns label=shape")
    in_classes = [f"{c}/{name}" for c, name in zip("0011", FOUR, strict=True)]
    assert find(members(in_classes, labels_dot_csv=text)) is None


def test_a_column_that_the_user_names_and_no_table_has_is_reported() -> None:
    with pytest.raises(LayoutError, match="has no column 'kind'; it has file, label"):
        read("labels.csv", members(FOUR, labels_dot_csv=rows_of(FOUR)), columns="label=kind")


def test_conflicting_rows_are_refused_and_equal_rows_are_not() -> None:
    twice = rows_of(FOUR) + "a.png,A\n"
    assert labels(members(FOUR, labels_dot_csv=twice)) == list(LETTERS)
    error = refusal(members(FOUR, labels_dot_csv=rows_of(FOUR) + "a.png,B\n"))
    assert "labels 'A' and 'B' for a.png" in str(error)


@pytest.mark.parametrize(
    "entry",
    [
        "./{}",
        "images/{}",
        "images\\{}",
        "/mnt/x/images/{}",
        "C:\\x\\{}",
        "https://a.b/c/{}?d=1",
    ],
)
def test_paths_of_another_machine_name_images(entry: str) -> None:
    names = [f"images/{name}" for name in FOUR]
    text = rows_of([entry.format(name) for name in FOUR])
    assert labels(members(names, labels_dot_csv=text)) == list(LETTERS)
    assert labels(members(FOUR, labels_dot_csv=text)) == list(LETTERS)


def test_a_row_for_a_missing_image_never_takes_another_folders_image() -> None:
    names = [f"train/{name}" for name in FOUR]
    other = [f"test/{name},B" for name in FOUR]
    text = rows_of(names) + "\n".join(other)
    match = find(members(names, labels_dot_csv=text))
    assert match is not None
    assert match.labels == list(LETTERS)
    assert any("4 rows name no image" in note for note in match.notes)


def test_case_is_ignored_last_and_that_is_noted() -> None:
    match = find(members(FOUR, labels_dot_csv=rows_of([name.upper() for name in FOUR])))
    assert match is not None
    assert match.labels == list(LETTERS)
    assert "in any case" in match.notes[0]
    some = find(members(FOUR, labels_dot_csv=rows_of(["A.PNG", *FOUR[1:]])))
    assert some is not None
    assert some.labels == list(LETTERS)
    assert "1 of them in any case" in some.notes[0]


def test_splits_and_writers_come_from_their_columns() -> None:
    text = "file,label,Set,writer_id\n" + "".join(
        f"{n},{c},{s},{w}\n"
        for n, c, s, w in zip(FOUR, LETTERS, ["Train", "Val", "", "test"], "0011", strict=True)
    )
    match = find(members(FOUR, labels_dot_csv=text))
    assert match is not None
    assert match.splits == ["Train", "Val", None, "test"]
    assert match.writers == ["0", "0", "1", "1"]


def test_fastais_flag_is_a_split_and_a_fold_is_not() -> None:
    text = "fname,label,is_valid,fold\na.png,A,True,0\nb.png,B,False,1\n"
    text += "c.png,A,False,0\nd.png,B,True,1\n"
    match = find(members(FOUR, labels_dot_csv=text))
    assert match is not None
    assert match.splits == ["validation", "train", "train", "validation"]


def test_several_flags_together_give_the_split() -> None:
    rows = ["a.png,A,True,False", "b.png,B,False,True", "c.png,A,False,False", "d.png,B,0,1.0"]
    match = find(members(FOUR, t_dot_csv="\n".join(["fname,label,is_valid,is_test", *rows])))
    assert match is not None
    assert match.splits == ["validation", "test", "train", "test"]
    rows = [
        f"{name},{label},x,{name == 'b.png'}" for name, label in zip(FOUR, LETTERS, strict=True)
    ]
    match = find(members(FOUR, t_dot_csv="\n".join(["fname,label,set,is_valid", *rows])))
    assert match is not None
    assert match.splits == ["train", "validation", "train", "train"]
    rows = ["a.png,A,1,0", "b.png,B,0,1", "c.png,A,0,0", "d.png,B,1,0"]
    match = find(members(FOUR, t_dot_csv="\n".join(["fname,label,is_train,is_valid", *rows])))
    assert match is not None
    assert match.splits == ["train", "validation", "test", "train"]


def test_a_table_of_splits_alone_needs_no_labels() -> None:
    text = "file,split\na.png,train\nb.png,test\nc.png,train\nd.png,train\n"
    archive = members(FOUR, splits_dot_csv=text)
    match = read("splits.csv", archive, split_from="table:splits.csv")
    assert match.splits == ["train", "test", "train", "train"]
    assert match.labels == [None] * 4
    assert find(archive) is None
    with pytest.raises(LayoutError, match="no column of the writer"):
        read("splits.csv", archive, writer_from="table:splits.csv")


def test_roboflows_tables_of_ones_form_one_table_over_the_splits() -> None:
    names = [f"{split}/{name}" for split in ("test", "train") for name in FOUR]
    text = "filename, 0, 1, Unlabeled\na.png, 1, 0, 0\nb.png, 0, 1, 0\nc.png, 1, 0, 0\n"
    text += "d.png, 0, 0, 1\n"
    archive = Members(
        dict.fromkeys(names, b"") | {f"{s}/_classes.csv": text for s in ("test", "train")}
    )
    match = find(archive)
    assert match is not None
    assert match.labels == ["0", "1", "0", None] * 2
    assert match.file == "_classes.csv"
    assert read("_classes.csv", archive).labels == match.labels
    several = Members(archive.data | {"train/_classes.csv": text.replace("1, 0, 0", "1, 1, 0")})
    with pytest.raises(LayoutError, match="several labels to one image: 0 and 1 to 'a"):
        read("train/_classes.csv", several)


def test_hugging_faces_metadata_counts_from_its_folder() -> None:
    names = [f"{split}/{i}.png" for split in ("test", "train") for i in range(4)]
    for suffix in ("csv", "jsonl"):
        tables: dict[str, str | bytes] = {}
        for split, classes in (("test", "ABAB"), ("train", "BABA")):
            rows = [{"file_name": f"{i}.png", "label": c} for i, c in enumerate(classes)]
            text = "file_name,label\n" + "".join(",".join(row.values()) + "\n" for row in rows)
            lines = "\n".join(map(json.dumps, rows))
            tables[f"{split}/metadata.{suffix}"] = text if suffix == "csv" else lines
        match = find(Members({**dict.fromkeys(names, b""), **tables}))
        assert match is not None
        assert match.labels == list("ABABBABA")
        assert match.file == f"metadata.{suffix}"


def test_tables_of_different_splits_are_joined_and_their_names_are_the_splits() -> None:
    archive = members(
        FOUR, train_dot_csv="id,label\na,A\nb,B\n", test_dot_csv="id,label\nc,A\nd,B\n"
    )
    match = find(archive)
    assert match is not None
    assert match.labels == list(LETTERS)
    assert match.splits == ["train", "train", "test", "test"]
    assert read(match.file, archive).splits == match.splits


def test_tables_that_disagree_are_refused_and_each_suggestion_works() -> None:
    archive = members(
        FOUR, one_dot_csv=rows_of(FOUR), two_dot_csv=rows_of(FOUR).replace("d.png,B", "d.png,A")
    )
    error = refusal(archive)
    assert error.suggestions == ("--class-from table:one.csv", "--class-from table:two.csv")
    for suggestion, right in zip(error.suggestions, ("ABAB", "ABAA"), strict=True):
        rule = shlex.split(suggestion)[1]
        assert read(rule.removeprefix("table:"), archive).labels == list(right)
    again = members(FOUR, one_dot_csv=rows_of(FOUR), two_dot_csv=rows_of(FOUR))
    assert labels(again) == list(LETTERS)


def task(name: str, *choices: Sequence[str], cancelled: bool = False) -> dict[str, object]:
    return {
        "id": 7,
        "data": {"image": f"/data/upload/1/1234abcd-{name}"},
        "annotations": [
            {
                "was_cancelled": cancelled,
                "result": [
                    {"from_name": "digit", "type": "choices", "value": {"choices": list(several)}}
                ],
            }
            for several in choices
        ],
        "predictions": [{"result": [{"type": "choices", "value": {"choices": ["Z"]}}]}],
    }


def test_label_studios_json_gives_choices_without_the_prefix_of_uploads() -> None:
    names = ["a 1.png", "b.png", "c.png", "d.png"]
    tasks = [task("a_1.png", ["A"], ["A"]), task("b.png", ["B"]), task("c.png", ["A"])]
    tasks.append(task("d.png", ["B"], cancelled=True))
    match = find(members(names, export_dot_json=json.dumps(tasks)))
    assert match is not None
    assert match.labels == ["A", "B", "A", None]
    assert "1 cancelled annotations" in match.notes[0]
    tasks[0] = task("a_1.png", ["A"], ["B"])
    assert "'A' and 'B' for a 1.png" in str(refusal(members(names, e_dot_json=json.dumps(tasks))))
    tasks[0] = task("a_1.png", ["A", "B"])
    assert "several labels" in str(refusal(members(names, e_dot_json=json.dumps(tasks))))


def test_label_studios_csv_gives_choices() -> None:
    text = "annotation_id,annotator,choice,created_at,id,image,lead_time,updated_at\n"
    for i, (name, choice) in enumerate(zip(FOUR, LETTERS, strict=True)):
        text += f"{i},{i % 2},{choice},2024,{i + 1},/data/upload/1/1234abcd-{name},1.5,2024\n"
    match = find(members(FOUR, project_dot_csv=text))
    assert match is not None
    assert match.labels == list(LETTERS)
    assert match.writers is None


def test_iams_words_have_writers_from_its_forms() -> None:
    ids = ["a01-000u-00-00", "a01-000u-00-01", "b02-001-00-00", "b02-001-00-01"]
    names = [f"words/{i[:3]}/{'-'.join(i.split('-')[:2])}/{i}.png" for i in ids]
    words = "#--- words.txt ---#\n# a line\n" + "".join(
        f"{i} {ok} 154 408 768 27 51 AT {word}\n"
        for i, ok, word in zip(ids, ("ok", "ok", "err", "ok"), ("A", '"', "MOVE", "A"), strict=True)
    )
    forms = "# forms\na01-000u 000 2 prt 7 5 52 36\nb02-001 001 2 prt 7 5 52 36\n"
    match = find(members(names, ascii__words_dot_txt=words, ascii__forms_dot_txt=forms))
    assert match is not None
    assert match.labels == ["A", '"', None, "A"]
    assert match.writers == ["000", "000", "001", "001"]
    assert "1 words whose segmentation is marked err" in match.notes[0]


def test_the_folders_of_iams_words_are_no_classes() -> None:
    ids = [f"a0{form}-000-00-0{word}" for form in range(3) for word in range(4)]
    names = [f"words/{i[:3]}/{i[:7]}/{i}.png" for i in ids]
    words = "".join(
        f"{i} {'err' if i[-1] == '0' else 'ok'} 154 4 7 2 5 AT {LETTERS[int(i[-1])]}\n" for i in ids
    )
    archive = members(names, words_dot_txt=words)
    layout = infer_layout(archive, names, LayoutOptions())
    assert layout.layout.class_from == "table:words.txt"
    assert layout.annotations.classes == ("A", "B")
    assert len(layout.rows) == 9


def test_a_table_of_some_images_that_contradicts_their_folders_is_ambiguous() -> None:
    names = [f"{'xy'[i % 2]}/{i}.png" for i in range(12)]
    text = "file,label\n" + "".join(f"{name},{'AAB'[i % 3]}\n" for i, name in enumerate(names[1:]))
    archive = members(names, labels_dot_csv=text)
    with pytest.raises(LayoutError, match="give different classes") as raised:
        infer_layout(archive, names, LayoutOptions())
    assert len(raised.value.suggestions) == 2


@pytest.mark.parametrize(
    "value",
    [
        [{"file": n, "label": c} for n, c in zip(FOUR, LETTERS, strict=True)],
        {"data": [{"file": n, "label": c} for n, c in zip(FOUR, LETTERS, strict=True)]},
        {"labels": [list(row) for row in zip(FOUR, LETTERS, strict=True)]},
        dict(zip(FOUR, LETTERS, strict=True)),
        {"file": dict(enumerate(FOUR)), "label": dict(enumerate(LETTERS))},
        {
            "images": [{"id": i, "file_name": n} for i, n in enumerate(FOUR)],
            "annotations": [{"image_id": i, "category_id": i % 2} for i in range(4)],
            "categories": [{"id": 0, "name": "A"}, {"id": 1, "name": "B"}],
        },
    ],
)
def test_json_gives_labels_in_each_common_shape(value: object) -> None:
    assert labels(members(FOUR, labels_dot_json=json.dumps(value))) == list(LETTERS)


def test_a_key_twice_in_json_is_refused() -> None:
    text = '{"a.png": "A", "b.png": "B", "c.png": "A", "a.png": "B"}'
    assert "'a.png' twice" in str(refusal(members(FOUR, labels_dot_json=text)))


def test_boxes_of_objects_are_no_classification() -> None:
    text = "filename,width,height,class,xmin,ymin,xmax,ymax\n" + "".join(
        f"{name},9,9,{c},1,1,2,2\n" for name in FOUR for c in "AB"
    )
    coco = {
        "images": [{"id": i, "file_name": n} for i, n in enumerate(FOUR)],
        "annotations": [{"image_id": 0, "category_id": 1, "bbox": [1, 1, 2, 2]}],
        "categories": [{"id": 1, "name": "A"}],
    }
    assert "detection" in str(refusal(members(FOUR, boxes_dot_csv=text)))
    assert "detection" in str(refusal(members(FOUR, boxes_dot_json=json.dumps(coco))))
    in_classes = [f"{c}/{name}" for c, name in zip("0011", FOUR, strict=True)]
    assert find(members(in_classes, boxes_dot_csv=text)) is None


def test_a_table_of_other_images_is_no_table_of_these() -> None:
    other = rows_of([f"x{name}" for name in FOUR])
    assert find(members(FOUR, labels_dot_csv=other)) is None
    with pytest.raises(LayoutError, match="no column that names the images"):
        read("labels.csv", members(FOUR, labels_dot_csv=other))
    with pytest.raises(LayoutError, match="no table 'none"):
        read("none.csv", members(FOUR))


def test_row_numbers_are_no_names_of_images() -> None:
    names = [f"{i}.png" for i in range(1, 21)]
    text = "id,label\n" + "".join(f"{i},{i % 3}\n" for i in range(20))
    assert "counts from 0 to 19 and the images from 1 to 20" in str(
        refusal(members(names, labels_dot_csv=text))
    )


def test_entries_with_and_without_suffix_may_mix() -> None:
    text = rows_of(["a.png", "b.png", "c.png", "D"])
    assert labels(members(FOUR, labels_dot_csv=text)) == list(LETTERS)


def test_columns_of_no_known_name_whose_values_are_numbers_name_no_images() -> None:
    names = [f"{i}.png" for i in range(20)]
    log = "epoch,lr\n" + "".join(f"{i},{i % 2}\n" for i in range(20))
    assert find(members(names, log_dot_csv=log)) is None


def test_a_table_of_more_images_than_there_are_gives_all_of_them_labels() -> None:
    many = "".join(f"x{i}.png,{'AB'[i % 2]}\n" for i in range(50))
    assert labels(members(FOUR, labels_dot_csv=rows_of(FOUR) + many)) == list(LETTERS)


def test_a_table_of_few_of_the_images_is_used_only_if_it_is_named() -> None:
    names = [f"{i:02}x.png" for i in range(20)]
    text = rows_of(names[:4])
    archive = members(names, labels_dot_csv=text)
    assert find(archive) is None
    match = read("labels.csv", archive)
    assert match.labels[:5] == [*LETTERS, None]
    assert any("16 images have no row" in note for note in match.notes)
    with pytest.raises(LayoutError, match="names 4 of 20 images"):
        read("labels.csv", members(names, labels_dot_csv=text + "y,A\n" * 9))


def test_a_folder_with_signs_of_patterns_is_excluded_by_its_name() -> None:
    names = [f"{folder}/{i}.png" for folder in ("a[1]", "test") for i in range(4)]
    error = refusal(members(names, labels_dot_csv=rows_of(["0", "1", "2", "3"])))
    pattern = shlex.split(error.suggestions[0])[1]
    options = LayoutOptions.parse(exclude=(pattern,))
    assert list(filter(options.selects, names)) == names[4:]


def test_files_of_single_images_are_not_read() -> None:
    class Unread(Members):
        def read(self, index: int) -> bytes:
            raise AssertionError(self.names[index])

    notes = {f"{name[0]}.json": "{}" for name in FOUR}
    archive = Unread(dict.fromkeys(FOUR, b"") | notes | {f"{i}.txt": "" for i in range(101)})
    assert find(archive) is None


def test_a_large_table_is_read_only_if_its_beginning_names_an_image() -> None:
    class Counting(Members):
        reads = 0

        def read(self, index: int) -> bytes:
            self.reads += 1
            return super().read(index)

    pixels = "label,pixel0,pixel1\n" + "7,0,255\n" * 200_000
    archive = Counting(dict.fromkeys(FOUR, b"") | {"pixels.csv": pixels.encode()})
    assert find(archive) is None
    assert archive.reads == 0


def test_a_file_of_the_user_is_relative_to_the_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(rows_of(FOUR))
    options = LayoutOptions.parse(class_from="table:mine.csv", folder=tmp_path)
    assert read_table("mine.csv", members(FOUR), FOUR, options).labels == list(LETTERS)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.text("abcäöZ0 .,;-_'\"", min_size=1, max_size=8),
            st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=4),
        ),
        min_size=2,
        max_size=12,
        unique_by=lambda pair: pair[0].casefold().strip(),
    ),
    st.sampled_from(",;\t"),
)
def test_what_a_csv_writer_writes_is_read_back(
    pairs: list[tuple[str, str]], delimiter: str
) -> None:
    names = [f"{name}x.png" for name, _ in pairs]
    names = [name.strip() for name in names]
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows(
        [["filename", "label"], *([n, c] for n, (_, c) in zip(names, pairs, strict=True))]
    )
    archive = Members({"labels.csv": file.getvalue()})
    match = read_table("labels.csv", archive, names, LayoutOptions())
    assert match.labels == [c for _, c in pairs] or ".0" in match.notes[0]


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.sampled_from([*FOUR, "A", "B", "[", ""]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                sorted(
                    {
                        "file",
                        "label",
                        "data",
                        "image",
                        "annotations",
                        "images",
                        "categories",
                        "value",
                    }
                    | {"result", "choices", "type", "id", "a.png", "b.png", "split", "writer"}
                )
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(
        st.binary(max_size=100),
        st.text('abcd.png,;\t\n\r"filelabel01[]{}\0 ', max_size=200).map(str.encode),
        JUNK.map(json.dumps).map(str.encode),
        st.lists(JUNK, min_size=1, max_size=4).map(json.dumps).map(str.encode),
    ),
    st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".txt"]),
)
@example(b"null", ".json")
@example(b"[[]]", ".json")
@example(b"{}", ".jsonl")
@example(b"\xff\xfe", ".csv")
def test_no_contents_end_in_a_traceback(data: bytes, suffix: str) -> None:
    archive = Members(dict.fromkeys(FOUR, b"") | {f"labels{suffix}": data})
    assert "\n" not in outcome(lambda: find(archive))
    assert "\n" not in outcome(lambda: read(f"labels{suffix}", archive))


def outcome(attempt: Callable[[], TableMatch | None]) -> str:
    try:
        match = attempt()
    except LayoutError as error:
        return str(error)
    assert match is None or len(match.labels) == len(FOUR)
    return ""


def test_json_that_is_nested_too_deeply_is_refused_in_one_line() -> None:
    archive = members(FOUR, labels_dot_json="[" * 100_000 + "]" * 100_000)
    with pytest.raises(LayoutError, match="nested too deeply"):
        read("labels.json", archive)
