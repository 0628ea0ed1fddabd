"""The MIDAS part 1 archive: 62 characters in folders of a number each, many writers.

`…/Sample001/img001-007.png` is the class of folder 1 drawn by writer 007. ImageFolder 1–10 are 0–9,
11–36 are A–Z, 37–62 are a–z. The set is the hand-drawn half of Chars74K (de Campos, Babu and Varma
2009), renamed.
"""

import re
from posixpath import basename, dirname

from pipeline.data.charset import CHARACTERS
from pipeline.data.sources.archives import Archive
from pipeline.data.sources.base import Annotations, Source, SourceError
from pipeline.data.sources.image_folder import ImageFilesSource, image_rows, split_of_folders

_FOLDER = re.compile(r"Sample([0-9]{3})", re.IGNORECASE)
_FILE = re.compile(r"img[0-9]+-([0-9]+)\.", re.IGNORECASE)


class Midas(ImageFilesSource):
    """The class comes from the folder's number, the writer from the file's name."""

    kind = "midas"
    expected_layout = "the folders Sample001…Sample062 of MIDAS part 1"

    @classmethod
    def detect(cls, archive: Archive) -> Source | None:
        """Return the source that `archive` hold, None if any picture lies in another folder."""
        rows = image_rows(archive)
        names = [archive.names[row] for row in rows]
        folders = [dirname(name) for name in names]
        matches = [_FOLDER.fullmatch(basename(folder)) for folder in folders]
        numbers = [int(match[1]) for match in matches if match]
        if not rows or len(numbers) < len(rows):
            return None
        if wrong := set(numbers) - set(range(1, len(CHARACTERS) + 1)):
            raise SourceError(
                f"{archive.path}: folder Sample{min(wrong):03}; expected {cls.expected_layout}"
            )
        present = sorted(set(numbers))
        label = {number: i for i, number in enumerate(present)}
        writers = [match[1] if (match := _FILE.match(basename(name))) else None for name in names]
        entries = Annotations.of(
            [CHARACTERS[number - 1] for number in present],
            [label[number] for number in numbers],
            writers=writers,
            splits=split_of_folders(folders),
        )
        return cls(archive, rows, entries)
