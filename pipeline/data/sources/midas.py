"""The MIDAS part 1 archive: 62 characters in folders of a number each, many writers.

`…/Sample001/img001-007.png` is the class of folder 1 drawn by writer 007. Folders 1–10 are 0–9,
11–36 are A–Z, 37–62 are a–z. The set is the hand-drawn half of Chars74K (de Campos, Babu and Varma
2009), renamed.
"""

import re
from posixpath import basename, dirname

from pipeline.data.charset import CHARACTERS
from pipeline.data.sources.base import Entries, Source, SourceError
from pipeline.data.sources.files import Files
from pipeline.data.sources.folders import ImageFiles, given, image_rows

_FOLDER = re.compile(r"Sample([0-9]{3})", re.IGNORECASE)
_FILE = re.compile(r"img[0-9]+-([0-9]+)\.", re.IGNORECASE)


class Midas(ImageFiles):
    """The class comes from the folder's number, the writer from the file's name."""

    kind = "midas"
    looks_for = "the folders Sample001…Sample062 of MIDAS part 1"

    @classmethod
    def find(cls, files: Files) -> Source | None:
        """Return the source that `files` hold, None if any picture lies in another folder."""
        rows = image_rows(files)
        names = [files.names[row] for row in rows]
        folders = [dirname(name) for name in names]
        matches = [_FOLDER.fullmatch(basename(folder)) for folder in folders]
        numbers = [int(match[1]) for match in matches if match]
        if not rows or len(numbers) < len(rows):
            return None
        if wrong := set(numbers) - set(range(1, len(CHARACTERS) + 1)):
            raise SourceError(
                f"{files.path}: folder Sample{min(wrong):03}; expected {cls.looks_for}"
            )
        present = sorted(set(numbers))
        label = {number: i for i, number in enumerate(present)}
        writers = [match[1] if (match := _FILE.match(basename(name))) else None for name in names]
        entries = Entries.of(
            [CHARACTERS[number - 1] for number in present],
            [label[number] for number in numbers],
            writers=writers,
            given=given(folders),
        )
        return cls(files, rows, entries)
