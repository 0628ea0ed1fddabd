"""The MIDAS part 1 dataset: 62 characters by many writers, in one numbered folder per class.

`…/Sample001/img001-007.png` is the class of folder 1, written by writer 007. Folders 1–10 are 0–9,
11–36 are A–Z, 37–62 are a–z. The dataset is the hand-drawn half of Chars74K (de Campos, Babu and
Varma 2009), renamed.
"""

import re
from posixpath import basename, dirname

import numpy as np

from pipeline.data.archives.base import Archive
from pipeline.data.base import Annotations, Source, SourceError
from pipeline.data.charset import CHARACTERS
from pipeline.data.sources.image_files import ImageFilesSource, image_rows, predefined_splits

_FOLDER = re.compile(r"Sample([0-9]{3})", re.IGNORECASE)
_FILE = re.compile(r"img[0-9]+-([0-9]+)\.", re.IGNORECASE)


class Midas(ImageFilesSource):
    """Images whose folder's number is the class and whose file name contains the writer."""

    kind = "midas"
    expected_layout = "the folders Sample001…Sample062 of MIDAS part 1"

    @classmethod
    def detect(cls, archive: Archive) -> Source | None:
        """Return the archive's source, None if any image is in another folder.

        Raises SourceError for a folder number outside 1–62.
        """
        rows = image_rows(archive)
        names = [archive.names[row] for row in rows]
        folders = [dirname(name) for name in names]
        matches = [_FOLDER.fullmatch(basename(folder)) for folder in folders]
        numbers = [int(match[1]) for match in matches if match]
        if not rows or len(numbers) < len(rows):
            return None
        if invalid := set(numbers) - set(range(1, len(CHARACTERS) + 1)):
            folder = f"Sample{min(invalid):03}"
            raise SourceError(f"{archive.path}: got {folder}, expected {cls.expected_layout}")
        present, labels = np.unique(numbers, return_inverse=True)
        classes = [CHARACTERS[number - 1] for number in present]
        writers = [match[1] if (match := _FILE.match(basename(name))) else None for name in names]
        splits = predefined_splits(folders)
        return cls(archive, rows, Annotations.of(classes, labels, writers=writers, splits=splits))
