"""Labels, splits and writers of image files from tables: members of a source, or a user's file."""

from pipeline.data.layout.tables.formats import IAM_WORDS
from pipeline.data.layout.tables.reading import TableMatch
from pipeline.data.layout.tables.search import find_table, read_table

__all__ = ["IAM_WORDS", "TableMatch", "find_table", "read_table"]
