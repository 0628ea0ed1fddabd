"""Tables in JSON and JSON lines. Sources: the export formats of Label Studio, COCO, iNaturalist."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.data.layout.tables.table import (
    DETECTION,
    MOST_CELLS,
    MOST_ROWS,
    IsHeader,
    NotATableError,
    Table,
    TableError,
    with_header,
)

_BOXES = ("boundingbox", "rectangle", "polygon", "keypoint", "brush", "ellipse")


def parse_json(text: str, is_header: IsHeader) -> Table:
    """Parse a list of objects or lists, or one of the known exports. Raises TableError."""
    try:
        value, format_ = _load(text), "JSON"
    except ValueError:
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) < 2:
            raise
        try:
            value, format_ = [_load(line) for line in lines], "JSON lines"
        except ValueError:
            value = _load(text)  # raises the reason for the whole
    if isinstance(value, dict):
        value = _unwrap(value)
    if isinstance(value, dict):
        return _parse_coco(value)
    if not isinstance(value, list):
        raise NotATableError("is no list of objects")
    if len(value) > MOST_ROWS:
        raise NotATableError(f"has more than {MOST_ROWS:,} rows")
    if value and all(isinstance(row, list) for row in value):
        return with_header(format_, [list(map(_cell, row)) for row in value], is_header)
    if not all(isinstance(row, dict) for row in value):
        raise NotATableError("is no list of objects")
    if any(isinstance(row.get("annotations", row.get("completions")), list) for row in value):
        tasks = [row for row in value if isinstance(row.get("data"), dict)]
        if tasks:
            return _parse_tasks(tasks)
    return _of_objects(format_, value)


def _load(text: str) -> Any:
    """Parse JSON with numbers as their text and NaN as "". Raises NotATableError."""
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=str,
            parse_float=str,
            parse_constant=lambda _: "",
        )
    except RecursionError:
        raise NotATableError("is JSON that is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise NotATableError(f"is not valid JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = Counter(name for name, _ in pairs)
        raise TableError(f"has the key {names.most_common(1)[0][0]!r} twice in one JSON object")
    return values


def _unwrap(value: dict[str, Any]) -> list[Any] | dict[str, Any]:
    """Return the rows in an object: {name: label}, {column: {row: cell}}, or one list in it."""
    if isinstance(value.get("images"), list) and isinstance(value.get("annotations"), list):
        return value
    if value and all(isinstance(cell, str) for cell in value.values()):
        return [{"file": name, "label": label} for name, label in value.items()]
    columns = list(value.values())
    if columns and all(isinstance(column, dict) for column in columns):
        rows = columns[0].keys()
        if all(column.keys() == rows for column in columns):
            if any(isinstance(cell, dict | list) for c in columns for cell in c.values()):
                raise NotATableError("is no list of objects")
            return [{name: value[name][key] for name in value} for key in columns[0]]
    lists = [entry for entry in columns if isinstance(entry, list)]
    if len(lists) == 1:
        return lists[0]
    raise NotATableError("is no list of objects")


def _cell(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value
    if value is None or value == []:
        return ""
    return json.dumps(value, ensure_ascii=False)


def _of_objects(format_: str, objects: Iterable[Mapping[str, Any]]) -> Table:
    objects = list(objects)
    columns = tuple(dict.fromkeys(itertools.chain.from_iterable(objects)))
    if len(objects) * len(columns) > MOST_CELLS:
        raise NotATableError(f"has more than {MOST_CELLS:,} cells")
    return Table(format_, columns, [[_cell(one.get(name)) for name in columns] for one in objects])


def _parse_tasks(tasks: Sequence[Mapping[str, Any]]) -> Table:
    """Parse Label Studio's tasks: one row for each annotation that was not cancelled."""
    rows: list[dict[str, Any]] = []
    cancelled, boxes, chosen = 0, False, False
    for task in tasks:
        known = {**task["data"], "file_upload": task.get("file_upload")}
        found = task.get("annotations", task.get("completions"))
        annotations = [a for a in found if isinstance(a, dict)] if isinstance(found, list) else []
        valid = [a for a in annotations if not a.get("was_cancelled")]
        cancelled += len(annotations) - len(valid)
        for annotation in valid or [{}]:
            results = annotation.get("result")
            choices, has_boxes = _choices(results if isinstance(results, list) else [])
            boxes, chosen = boxes or has_boxes, chosen or bool(choices)
            rows.append({**choices, **known})
    table = _of_objects("Label Studio JSON", rows)
    if boxes and not chosen:
        raise TableError(DETECTION)
    notes = (f"{cancelled:,} cancelled annotations are left out",) if cancelled else ()
    return Table(table.format, table.columns, table.rows, notes)


def _choices(results: Sequence[Any]) -> tuple[dict[str, Any], bool]:
    """Return an annotation's choices by the name of their control, and whether it has boxes."""
    choices: dict[str, Any] = {}
    boxes = False
    for result in results:
        if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
            continue
        kind, name = str(result.get("type")), str(result.get("from_name") or "choice")
        if kind in ("choices", "textarea"):
            value = result["value"].get("choices", result["value"].get("text"))
            earlier = choices.get(name, [])
            choices[name] = [*earlier, *(value if isinstance(value, list) else [value])]
        boxes |= kind.startswith(_BOXES)
    return choices, boxes


def _parse_coco(value: Mapping[str, Any]) -> Table:
    """Parse COCO's images, annotations and categories, if annotations are of whole images."""
    parts = [value["images"], value["annotations"], value.get("categories", [])]
    if not all(isinstance(p, list) and all(isinstance(one, dict) for one in p) for p in parts):
        raise NotATableError("is no list of objects")
    images, annotations, categories = parts
    if any(one.get("bbox") or one.get("segmentation") for one in annotations):
        raise TableError(DETECTION)
    names = {_cell(one.get("id")): _cell(one.get("name")) for one in categories}
    labels: dict[str, list[str]] = {}
    for one in annotations:
        category = _cell(one.get("category_id"))
        labels.setdefault(_cell(one.get("image_id")), []).append(names.get(category, category))
    rows = [
        [_cell(one.get("file_name")), label]
        for one in images
        for label in labels.get(_cell(one.get("id")), [""])
    ]
    return Table("COCO JSON", ("file_name", "category"), rows)
