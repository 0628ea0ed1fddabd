"""Image names as tables write them: paths, file names, numbers, addresses of uploads."""

import glob
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline.data.base import IMAGE_SUFFIXES, LayoutError

_SUFFIXES = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)
_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")  # Label Studio's, before the name of an uploaded file
_UNSAFE = re.compile(r"[^\w.-]")  # left out of the names of uploaded files; spaces become _
_SIGNS = re.compile(r"[/\\]")  # of a path or an address
_AMBIGUOUS = -2
_SAMPLE = 64  # entries that decide whether a comparison is worth trying

Key = Callable[[str], str | None]


def clean_entry(entry: str) -> str:
    """Return a table's entry as a relative path in NFC: from a path, a Windows path or a URL."""
    entry = unicodedata.normalize("NFC", entry.strip())
    if not _SIGNS.search(entry):
        return entry
    if "://" in entry or entry.startswith("/data/"):  # the second: Label Studio's
        try:
            url = urlsplit(entry)
        except ValueError:  # brackets that are no IPv6 address
            return entry
        local = parse_qs(url.query).get("d") if url.path.endswith("/local-files/") else None
        entry = unicodedata.normalize("NFC", local[0] if local else unquote(url.path))
    parts = entry.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _stem(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return stem if stem and suffix.lower() in _SUFFIXES else name


def _safe_stem(name: str) -> str:
    folder, slash, base = _stem(name).rpartition("/")
    return folder + slash + _safe(base)


def _upload_stem(entry: str) -> str:
    folder, slash, base = _stem(entry).rpartition("/")
    return folder + slash + _safe(_UPLOAD.sub("", base) if base[8:9] == "-" else base)


def _safe(name: str) -> str:
    return name if name.isalnum() else _UNSAFE.sub("", name.replace(" ", "_"))


def _number(name: str) -> str | None:
    folder, slash, stem = _stem(name).rpartition("/")
    digits = stem.isascii() and stem.isdecimal()
    return f"{folder}{slash}{stem.lstrip('0') or '0'}" if digits else None


def _folded(name: str) -> str:
    return _stem(name).casefold()


def _same(name: str) -> str:
    return name


# How names are compared: a phrase, the key of an entry and the key of an image, strictest first.
_FORMS: tuple[tuple[str, Key, Key], ...] = (
    ("", _same, _same),
    (" without suffix", _stem, _stem),
    (" without the prefix of an upload", _upload_stem, _safe_stem),
    (" as a number", _number, _number),
    (" in any case", _folded, _folded),
)


def _loose(name: str) -> str:
    """Return a key that is equal wherever any comparison of two names is."""
    key = _upload_stem(name.rpartition("/")[2]).casefold()
    return key.lstrip("0") or "0" if key.isascii() and key.isdecimal() else key


def _last(parts: int) -> Key:
    def key(name: str) -> str | None:
        split = name.split("/")
        return "/".join(split[-parts:]) if len(split) >= parts else None

    return key


def _below(folder: str) -> Key:
    return lambda entry: f"{folder}/{entry}" if folder else entry


@dataclass(frozen=True)
class Match:
    """Which image each entry names: `indices` into the names, or -1, and how that was found."""

    indices: list[int]
    how: str


class ImageNames:
    """The names of the images of a source, in NFC, to be found by the entries of its tables."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.folders = {name.rpartition("/")[0] for name in self.names}
        self._loose: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            self._loose.setdefault(_loose(name), []).append(i)

    def may_name(self, entry: str) -> bool:
        """Return whether an entry names an image by the loosest comparison."""
        return bool(entry.strip()) and _loose(clean_entry(entry)) in self._loose

    def hits(self, entries: Sequence[str]) -> int:
        """Return how many distinct entries name an image by the loosest comparison."""
        return sum(map(self.may_name, set(entries)))

    def match(self, entries: Sequence[str], file: str) -> Match:
        """Find the image of each entry by the strictest comparison that finds most of them.

        `file` is the table's relative path; paths count from its folder or from the source's.
        Raises LayoutError if entries name several images.
        """
        cleaned = [clean_entry(entry) for entry in entries]
        distinct = list(dict.fromkeys(name for name in cleaned if name))
        possible = min(len(distinct), len(self.names))
        likely = [
            (name, self._loose[key]) for name in distinct if (key := _loose(name)) in self._loose
        ]
        sample = likely[:: 1 + len(likely) // _SAMPLE]
        ambiguous: LayoutError | None = None
        for phrase, entry_place, image_place, entry_form, image_form in self._comparisons(file):
            entry_key, image_key = _then(entry_place, entry_form), _then(image_place, image_form)
            if not self._finds_some(sample, entry_key, image_key):
                continue
            index = self._index(image_key)
            keys = [entry_key(name) for name in distinct]
            repeated = set() if entry_form is _upload_stem else _repeated(keys)
            found = [
                _AMBIGUOUS if key in repeated and key in index else index.get(key, -1)
                for key in keys
            ]
            if 2 * sum(at != -1 for at in found) < possible:
                continue
            if _AMBIGUOUS in found:
                one = distinct[found.index(_AMBIGUOUS)]
                ambiguous = ambiguous or self._ambiguity(file, one, index, image_key, entry_key)
                continue
            where = dict(zip(distinct, found, strict=True))
            rest = self._match_rest(where, _then(entry_place, _folded), _then(image_place, _folded))
            how = f"{phrase}, {rest:,} of them in any case and without suffix" if rest else phrase
            return Match([where.get(name, -1) for name in cleaned], how)
        if ambiguous:
            raise ambiguous
        return Match([-1] * len(entries), "")

    def _finds_some(
        self, sample: Sequence[tuple[str, list[int]]], entry_key: Key, image_key: Key
    ) -> bool:
        """Return whether a comparison finds a quarter of a sample: entries, and likely images."""
        found = 0
        for entry, likely in sample:
            key = entry_key(entry)
            found += key is not None and any(image_key(self.names[i]) == key for i in likely)
        return 4 * found >= len(sample) > 0

    def _comparisons(self, file: str) -> Iterator[tuple[str, Key, Key, Key, Key]]:
        """Yield a phrase, the place of an entry and of an image, and the form of both."""
        folder, _, name = file.rpartition("/")
        words = set(re.split(r"[\W_]+", name.casefold()))
        hinted = sorted(f for f in self.folders if f and PurePosixPath(f).name.casefold() in words)
        places: list[tuple[str, Key, Key]] = [("path", _same, _same)]
        if folder:
            places.insert(0, (f"path in {folder}/", _below(folder), _same))
        for parts, phrase in ((3, "last two folders and name"), (2, "folder and name")):
            places.append((phrase, _last(parts), _last(parts)))
        places.append(("file name", _last(1), _last(1)))
        places += [(f"path in {hint}/", _below(hint), _same) for hint in hinted[:8]]
        for form, entry_form, image_form in _FORMS:
            for place, entry_place, image_place in places:
                yield place + form, entry_place, image_place, entry_form, image_form

    def _index(self, key: Key) -> dict[str | None, int]:
        index: dict[str | None, int] = {}
        for i, name in enumerate(self.names):
            of_name = key(name)
            if of_name is not None:
                index[of_name] = _AMBIGUOUS if of_name in index else i
        return index

    def _match_rest(self, where: dict[str, int], entry_key: Key, image_key: Key) -> int:
        """Find the images of other entries among the other images; return how many."""
        used = set(where.values())
        rest = {entry: entry_key(entry) for entry, at in where.items() if at == -1}
        index: dict[str | None, int] = {}
        for i, name in enumerate(self.names) if rest else ():
            if i not in used:
                key = image_key(name)
                index[key] = -1 if key in index else i
        repeated = _repeated(list(rest.values())) | {None}
        found = {e: index.get(key, -1) for e, key in rest.items() if key not in repeated}
        where.update(found)
        return sum(at != -1 for at in found.values())

    def _ambiguity(
        self,
        file: str,
        entry: str,
        index: dict[str | None, int],
        image_key: Key,
        entry_key: Key,
    ) -> LayoutError:
        several = [name for name in self.names if index.get(image_key(name), -1) == _AMBIGUOUS]
        same = [name for name in several if image_key(name) == entry_key(entry)]
        if len(same) < 2:
            return LayoutError(f"{file}: several rows name the same image, as {entry!r} does")
        folders = sorted({name.rpartition("/")[0] for name in several})
        apart = len(folders) == 2 and all(
            f and not f"{g}/".startswith(f"{f}/") and not file.startswith(f"{f}/")
            for f, g in (folders, folders[::-1])
        )
        return LayoutError(
            f"{file}: {entry!r} names {same[0]} and {same[1]}, expected one image",
            [f"--exclude {shlex.quote(f'{glob.escape(folder)}/*')}" for folder in folders]
            if apart
            else (),
        )


def _then(place: Key, form: Key) -> Key:
    def key(name: str) -> str | None:
        placed = place(name)
        return None if placed is None else form(placed)

    return key


def _repeated(keys: Sequence[str | None]) -> set[str | None]:
    return {key for key, count in Counter(keys).items() if count > 1 and key is not None}
