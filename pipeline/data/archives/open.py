"""Opens whatever lies at a path as an archive; the content decides, not the suffix."""

from pathlib import Path

from pipeline.data.archives.base import Archive
from pipeline.data.archives.folder import Folder, SingleFile
from pipeline.data.archives.tar_archive import TarArchive, is_tar
from pipeline.data.archives.zip_archive import ZipArchive, is_zip
from pipeline.data.base import SourceError

# First bytes of the archives that are not read.
_OTHER = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "a file compressed by zstd",
    b"\x04\x22\x4d\x18": "a file compressed by lz4",
}


def open_archive(path: Path) -> Archive:
    """Return the folder, zip or tar archive at a path, or any other file as an archive of itself.

    Raises SourceError for a missing path and for a damaged or unsafe archive, and OSError for an
    unreadable one.
    """
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    if not path.is_file():
        raise SourceError(f"{path}: is neither a file nor a folder")
    if is_tar(path):
        return TarArchive(path)
    if is_zip(path):
        return ZipArchive(path)
    with path.open("rb") as file:
        head = file.read(8)
    if kind := next((name for mark, name in _OTHER.items() if head.startswith(mark)), None):
        raise SourceError(
            f"{path}: is {kind}, expected a folder, a zip archive or a tar archive "
            "(also .gz, .bz2 or .xz): unpack it and use the folder"
        )
    return SingleFile(path)
