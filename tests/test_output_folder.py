from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.runtime.folders import output_folder


def write(path: Path, text: str, command: str = "explain") -> None:
    with output_folder(path, command) as folder:
        assert not any(folder.iterdir())
        (folder / "page").write_text(text)
        (folder / text).mkdir()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_command_replaces_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "out", "first")
    write(tmp_path / "deep" / "out", "second")
    assert (tmp_path / "deep" / "out" / "page").read_text() == "second"
    assert names(tmp_path / "deep" / "out") == {".inkrun", "page", "second"}
    assert names(tmp_path / "deep") == {"out"}


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", "first")
    assert (tmp_path / "out" / "page").exists()


@pytest.mark.parametrize("before", [True, False])
def test_nothing_stays_after_an_error(tmp_path: Path, before: bool) -> None:
    if before:
        write(tmp_path / "out", "first")
    with pytest.raises(FileExistsError):
        write(tmp_path / "out", "page")  # a file and a folder of one name
    assert names(tmp_path) == ({"out"} if before else set())
    if before:
        assert (tmp_path / "out" / "page").read_text() == "first"


def test_other_folders_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    write(tmp_path / "other", "first", "export --to hub")
    for name in ("mine", "file", "other"):
        with pytest.raises(UserError, match="expected a new folder for explain"):
            write(tmp_path / name, "x")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"
    assert (tmp_path / "other" / "page").read_text() == "first"
