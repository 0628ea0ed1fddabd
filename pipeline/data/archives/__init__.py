"""Folders, zip and tar archives behind one interface."""

from pipeline.data.archives.base import Archive
from pipeline.data.archives.folder import Folder, SingleFile
from pipeline.data.archives.open import open_archive
from pipeline.data.archives.tar_archive import TarArchive
from pipeline.data.archives.zip_archive import ZipArchive

__all__ = ["Archive", "Folder", "SingleFile", "TarArchive", "ZipArchive", "open_archive"]
