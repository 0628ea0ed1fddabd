"""What the names of folders mean: splits, writers, containers of files, and copies.

Names are compared without case, spaces, hyphens and underscores.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from pipeline.data import base

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), base.TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), base.VALIDATION),
    **dict.fromkeys(("test", "testing", "tst", "tests"), base.TEST),
}
# Words that add nothing to the name of a split: trainingSet, train_images, test data.
_AFFIXES = (
    *("sets", "set", "datasets", "dataset", "data", "images", "image", "imgs", "img"),
    *("folder", "split", "samples", "files", "png", "jpg"),
)
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_a-zA-Z]+|[0-9]+")

_SIZE = re.compile(r"(?<![^\W_])[0-9]+(x[0-9]+)+(?![^\W_])")  # of an array: 13440x32x32

# Folders that hold files of one format or one purpose, and say nothing of an image's class.
_CONTAINERS = frozenset(
    (
        *("images", "image", "imgs", "img", "data", "dataset", "raw", "photos", "files"),
        *("png", "pngs", "jpg", "jpgs", "jpeg", "jpegs", "bmp", "tif", "tiff", "gif", "webp"),
    )
)
# Folders beside those of classes that are hardly classes themselves.
_NO_CLASSES = _CONTAINERS | frozenset(
    (
        *("msk", "masks", "labels", "annotations", "groundtruth", "gt", "preview", "previews"),
        *("thumb", "thumbs", "thumbnail", "thumbnails", "unlabeled", "unlabelled", "unsorted"),
        *("tmp", "temp", "backup", "newfolder", "prediction", "predictions", "pred"),
    )
)
# Folders that hold the same images in another form.
_VERSIONS = frozenset(
    (
        *("original", "originals", "orig", "processed", "preprocessed", "augmented", "resized"),
        *("scaled", "cropped", "crops", "binarized", "binarised", "inverted", "denoised", "noisy"),
        *("normalized", "normalised", "enhanced", "skeleton", "skeletons", "grey", "gray"),
        *("grayscale", "greyscale", "rgb", "color", "colour", "binary", "clean", "copy"),
    )
)
_WRITER = re.compile(
    r"((writer|user|author|subject|person|student|participant|volunteer|scribe|contributor)"
    r"([-_ ]?[0-9]+|[-_ ]\w+)|(w|wr|u|usr|subj|s|p)[-_ ]?[0-9]+)",
    re.IGNORECASE,
)
_PARTITION = re.compile(r"hsf_[0-9]", re.IGNORECASE)
_NIST_WRITER = re.compile(r"[a-z][0-9]{4}_[0-9]{2}", re.IGNORECASE)
_FOLD = re.compile(r"(cv[-_ ]?)?k?fold[-_ ]?[0-9]{1,2}", re.IGNORECASE)
_REPEATED_PARTITION = re.compile(r"train_[0-9a-f]{2}(_[0-9a-f]{2})*", re.IGNORECASE)
_COPY = re.compile(
    r"(.+?)[ _]?(-[ _]?(copy|kopie|copie|copia)|\(([0-9]+|copy)\)| copy|[-_ ]aug(mented)?)( .*)?",
    re.IGNORECASE,
)
_NUMBER_WORDS = frozenset(
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
)


def normalize(name: str) -> str:
    """Return a folder's name as it is compared."""
    return re.sub(r"[-_\s.]+", "", unicodedata.normalize("NFC", name)).casefold()


def split_of(name: str) -> int | None:
    """Return the split that a folder's name stands for, None if it stands for none."""
    meaning, rest = _split_and_rest(name)
    return meaning if not rest else None


def splits_of(names: Iterable[str]) -> dict[str, int]:
    """Return the split of each of a level's folders that stands for one.

    Folders that differ only in the split, such as mnist_train and mnist_test, stand for splits too,
    and so do parts of splits if the level has no others: training-a, training-b, testing-a.
    """
    parsed = {name: _split_and_rest(name) for name in names}
    found = {
        name: split for name, (split, rest) in parsed.items() if split is not None and not rest
    }
    related: dict[tuple[str, ...], dict[str, int]] = {}
    for name, (split, rest) in parsed.items():
        if split is not None and rest:
            related.setdefault(rest, {})[name] = split
    for group in related.values():
        if len(set(group.values())) > 1:
            found |= group
    parts = {
        name: split
        for name, (split, rest) in parsed.items()
        if split is not None and _is_mark(rest)
    }
    return parts if len(parts) == len(parsed) and len(set(parts.values())) > 1 else found


def sets_of_splits(names: Iterable[str]) -> list[list[str]]:
    """Group names of splits by their other words: train and test, trainSample and testSample."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(names):
        rest = _split_and_rest(name)[1]
        groups.setdefault(() if _is_mark(rest) else rest, []).append(name)
    return list(groups.values())


def _is_mark(words: Sequence[str]) -> bool:
    """Return whether words only number the parts of a split: a number, a letter or "part"."""
    return all(len(word) == 1 or word.isdigit() or word == "part" for word in words)


def _split_and_rest(name: str) -> tuple[int | None, tuple[str, ...]]:
    """Return the one split among a name's words, if any, and the words that say something else."""
    meanings, rest = set[int](), []
    for word in _WORDS.findall(_SIZE.sub(" ", unicodedata.normalize("NFC", name))):
        lower = word.lower()
        stems = (lower, *(lower.removesuffix(affix) for affix in _AFFIXES))
        meaning = next((SPLIT_WORDS[stem] for stem in stems if stem in SPLIT_WORDS), None)
        if meaning is not None:
            meanings.add(meaning)
        elif lower not in _AFFIXES:
            rest.append(lower)
    if meanings == {base.TRAIN, base.VALIDATION}:  # train_val is still to be divided
        meanings = {base.TRAIN}
    return (meanings.pop() if len(meanings) == 1 else None), tuple(rest)


def mentions_split(name: str) -> bool:
    """Return whether a split is among the words of a file's name, as in train_test_split."""
    words = _WORDS.findall(unicodedata.normalize("NFC", name))
    return any(word.lower() in SPLIT_WORDS for word in words)


def may_be_class(name: str) -> bool:
    """Return whether a name that also means a split is a common class: a train is a vehicle."""
    return normalize(name) in ("train", "trains")


def is_container(name: str) -> bool:
    """Return whether a folder only holds files, such as images, data or png."""
    return normalize(name) in _CONTAINERS


def is_no_class(name: str) -> bool:
    """Return whether a folder beside others is hardly a class, such as masks or preview."""
    return normalize(name) in _NO_CLASSES


def is_version(name: str) -> bool:
    """Return whether a folder holds one form of images: original, resized or 28x28."""
    return normalize(name) in _VERSIONS or _SIZE.fullmatch(name) is not None


def copied_from(name: str) -> str | None:
    """Return the name that a copy's name was made of: "cat" of "cat - Copy" and "cat_aug"."""
    match = _COPY.fullmatch(name.strip())
    return match[1].strip() if match else None


def is_writer(name: str) -> bool:
    """Return whether a folder is named like a writer, such as writer_01, w3 or student 7."""
    return _WRITER.fullmatch(name) is not None


def is_surely_writer(name: str) -> bool:
    """Return whether a folder is surely of writers: writer_01, hsf_0 and f0000_14, but not w3."""
    named = is_writer(name) and re.match(r"[^\W\d_]{4}", name) is not None
    return named or is_partition(name) or _NIST_WRITER.fullmatch(name) is not None


def is_partition(name: str) -> bool:
    """Return whether a folder is a partition of NIST SD19, hsf_0 to hsf_8."""
    return _PARTITION.fullmatch(name) is not None


def is_fold(name: str) -> bool:
    """Return whether a folder is a part of a cross-validation, such as fold1."""
    return _FOLD.fullmatch(name) is not None


def is_repeated_partition(name: str) -> bool:
    """Return whether a folder of NIST SD19, such as train_30, repeats images of partitions."""
    return _REPEATED_PARTITION.fullmatch(name) is not None


def are_characters(names: Iterable[str]) -> bool:
    """Return whether names are clearly classes of characters: five or more, with 0 or letters."""
    distinct = set(names)
    if all(normalize(name) in _NUMBER_WORDS for name in distinct):
        return len(distinct) >= 5
    single = all(len(name) == 1 and name.isalnum() for name in distinct)
    return single and len(distinct) >= 5 and any(n == "0" or not n.isdigit() for n in distinct)


def natural_sort_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that puts "2" before "10"."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
