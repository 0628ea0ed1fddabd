"""Archives: what lies in a folder, zip or tar archive is read as it is, or refused in one line."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import pickle
import stat
import struct
import tarfile
import tempfile
import tracemalloc
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from raw_data import make_tree, make_zip

from pipeline.data.archives import Archive, Folder, TarArchive, ZipArchive, open_archive
from pipeline.data.archives import tar_archive as tar_module
from pipeline.data.base import ImageError, SourceError

Tmp = pytest.TempPathFactory


def make_tar(path: Path, files: Mapping[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def make_tgz(path: Path, files: Mapping[str, bytes]) -> Path:
    make_tar(path, files)
    path.write_bytes(gzip.compress(path.read_bytes(), 1))
    return path


KINDS = [make_tree, make_zip, make_tar, make_tgz]
every_kind = pytest.mark.parametrize("make", KINDS)
FILES = {f"{c}/{i}.png": f"{c}{i}".encode() * (i + 1) for c in ("a", "b") for i in range(3)}


def contents(archive: Archive) -> dict[str, bytes]:
    return {name: bytes(archive.read(i)) for i, name in enumerate(archive.names)}


def refusal(path: Path) -> str:
    """The line with which a path is refused."""
    with pytest.raises(SourceError) as caught:
        open_archive(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def opened(kind: Callable[[Path], Archive], path: Path) -> Archive | None:
    """A damaged archive, None if it is refused in one line."""
    try:
        return kind(path)
    except SourceError as error:
        reason = str(error)
    assert reason.startswith(f"{path}: ")
    assert "\n" not in reason
    return None


# Every kind


@every_kind
def test_an_archive_gives_what_was_put_in(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = open_archive(make(tmp_path / "set", FILES))
    assert contents(archive) == FILES
    assert archive.names == sorted(FILES)
    assert archive.sizes == [len(FILES[name]) for name in archive.names]
    assert archive.left_out == {}
    for i, name in enumerate(archive.names):
        with archive.open(i) as stream:
            assert stream.read() == FILES[name]
        assert [archive.head(i, size) for size in (0, 1, 99)] == [
            FILES[name][:size] for size in (0, 1, 99)
        ]
        assert archive.place(i) == str(tmp_path / "set" / name)


@every_kind
def test_a_pickled_archive_reads_the_same(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = open_archive(make(tmp_path / "set", FILES))
    archive.read(0)
    assert contents(pickle.loads(pickle.dumps(archive))) == FILES


@every_kind
def test_a_view_has_the_selected_files_alone(tmp_path: Path, make: Callable[..., Path]) -> None:
    whole = open_archive(make(tmp_path / "set", FILES))
    view = whole.select(lambda name: name.startswith("b/"))
    chosen = {name: data for name, data in FILES.items() if name.startswith("b/")}
    assert contents(view) == contents(pickle.loads(pickle.dumps(view))) == chosen
    assert contents(whole) == FILES
    assert view.sizes == [len(data) for data in chosen.values()]
    assert view.digest([0, 1, 2]) == whole.digest([3, 4, 5]) != whole.digest(range(6))


JUNK = {
    "__MACOSX/a/._0.png": "__MACOSX",
    "a/.ipynb_checkpoints/0-checkpoint.png": ".ipynb_checkpoints",
    "a/Thumbs.db": "Thumbs.db",
    "b/thumbs.DB": "Thumbs.db",
    "Desktop.ini": "desktop.ini",
    ".DS_Store": ".DS_Store",
    "a/._0.png": "._*",
    "a/@eaDir/0.png/SYNOPHOTO_THUMB_S.png": "@eaDir",
    "a/@eaDir/0.png/SYNOPHOTO_THUMB_M.png": "@eaDir",
    "$RECYCLE.BIN/S-1-5/x.png": "$RECYCLE.BIN",
    "System Volume Information/x": "System Volume Information",
    ".git/objects/ab/x.png": "hidden files",
    "b/.hidden.png": "hidden files",
}


@every_kind
def test_junk_is_left_out_and_counted_by_kind(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = open_archive(make(tmp_path / "set", FILES | dict.fromkeys(JUNK, b"junk")))
    assert contents(archive) == FILES
    kinds = list(JUNK.values())
    assert archive.left_out == {kind: kinds.count(kind) for kind in kinds}


@every_kind
def test_data_that_resembles_junk_stays(tmp_path: Path, make: Callable[..., Path]) -> None:
    names = ("__MACOSX2/0.png", "a.DS_Store/x.png", "@/0.png", "_/0.png")
    files = dict.fromkeys((*names, "thumbs.db.png", "dot.b/x..png", "@eaDirs/x"), b"data")
    assert contents(open_archive(make(tmp_path / "set", files))) == files


@every_kind
def test_names_in_two_unicode_forms_are_files_of_one_folder(
    tmp_path: Path, make: Callable[..., Path]
) -> None:
    decomposed = unicodedata.normalize("NFD", "ä")
    assert decomposed != "ä"
    files = {"ä/0.png": b"1", f"{decomposed}/0.png": b"2", f"{decomposed}/1.png": b"3", "b/0": b""}
    archive = open_archive(make(tmp_path / "set", files))
    assert archive.names == ["b/0", "ä/0.png", "ä/0.png", "ä/1.png"]
    # Decomposed sorts first: in the same order on every system.
    assert [bytes(archive.read(i)) for i in range(4)] == [b"", b"2", b"1", b"3"]


def test_digests_are_those_of_earlier_versions(tmp_path: Path) -> None:
    files, junk = dict(sorted(FILES.items())), dict.fromkeys(JUNK, b"junk")
    folder = Folder(make_tree(tmp_path / "tree", files | junk))
    expected = hashlib.sha256()
    for name, data in files.items():
        expected.update(f"{name}\0{len(data)}\0".encode() + data)
    assert folder.digest(range(6)) == f"sha256:{expected.hexdigest()}"
    path = make_zip(tmp_path / "set.zip", files | junk)
    archive, expected = ZipArchive(path), hashlib.sha256(path.read_bytes())
    assert archive.digest(range(6)) == f"sha256:{expected.hexdigest()}"
    expected.update("\0".join(list(files)[2:]).encode())
    assert archive.digest(range(2, 6)) == f"sha256:{expected.hexdigest()}"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [make_zip, make_tar, make_tgz])
@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "C:/x", "..\\x", "a/.."])
def test_names_that_point_outside_are_refused(
    tmp_path: Path, make: Callable[..., Path], name: str
) -> None:
    assert "points outside the archive" in refusal(make(tmp_path / "set", FILES | {name: b""}))


@pytest.mark.parametrize("make", [make_zip, make_tar, make_tgz])
@pytest.mark.parametrize("name", ["./a/0.png", "a//0.png", "a\\0.png", "a/./0.png"])
def test_two_members_of_one_name_are_refused(
    tmp_path: Path, make: Callable[..., Path], name: str
) -> None:
    reason = refusal(make(tmp_path / "set", FILES | {name: b""}))
    assert "member 'a/0.png' has the same name as another member" in reason


# Folders and single files


def test_links_in_a_folder_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make_tree(tmp_path / "elsewhere", {"0.png": b"linked"})
    folder = make_tree(tmp_path / "set", {"a/0.png": b"own"})
    (folder / "b").symlink_to(tmp_path / "elsewhere")
    (folder / "a" / "1.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    (folder / "a" / "again").symlink_to(folder)
    archive = open_archive(folder)
    assert contents(archive) == {"a/0.png": b"own", "a/1.png": b"linked", "b/0.png": b"linked"}
    assert archive.sizes == [3, 6, 6]


def test_a_broken_link_is_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "set", FILES)
    (folder / ".link").symlink_to("nothing")
    assert open_archive(folder).left_out == {"hidden files": 1}
    (folder / "a" / "9.png").symlink_to("nothing")
    archive = open_archive(folder)
    link = archive.names.index("a/9.png")
    assert archive.sizes[link] == 0
    with pytest.raises(FileNotFoundError, match=r"a/9\.png"):
        archive.read(link)


def test_what_is_no_file_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "set", FILES)
    os.mkfifo(folder / "a" / "pipe.png")
    assert contents(open_archive(folder)) == FILES
    with pytest.raises(SourceError, match="neither a file nor a folder"):
        open_archive(folder / "a" / "pipe.png")


def test_a_folder_without_its_folders(tmp_path: Path) -> None:
    archive = Folder(make_tree(tmp_path, FILES | {"x.csv": b"1", ".y": b"2"}), nested=False)
    assert (archive.names, archive.left_out) == (["x.csv"], {"hidden files": 1})


@pytest.mark.parametrize(
    "data",
    [b"", b"id,label\n", bytes(2048), gzip.compress(b"one file", mtime=0), b"PK", b"BZh9 no bzip2"],
)
def test_any_other_file_is_an_archive_of_one_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / f".{unicodedata.normalize('NFD', 'ä')}.csv"
    path.write_bytes(data)
    archive = pickle.loads(pickle.dumps(open_archive(path)))
    assert (archive.path, archive.names, archive.sizes) == (path, [".ä.csv"], [len(data)])
    assert archive.read(0) == archive.open(0).read() == data
    assert (archive.head(0, 2), archive.place(0)) == (data[:2], str(path))
    assert archive.digest([0]).startswith("sha256:")


def test_paths_that_are_no_archive_are_refused(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path / "missing.zip")
    for kind, head in (("7z", b"7z\xbc\xaf\x27\x1c\0\4"), ("zstd", b"\x28\xb5\x2f\xfd\4\0")):
        (tmp_path / kind).write_bytes(head + bytes(600))
        reason = refusal(tmp_path / kind)
        assert kind in reason
        assert "expected a folder, a zip archive or a tar" in reason


# Zip

names = st.lists(
    st.sampled_from(("a", "b", "ä", "字", "x y", "0.png", "A.PNG", "é" * 40)),
    min_size=1,
    max_size=3,
).map("/".join)


@st.composite
def zips(draw: st.DrawFn) -> bytes:
    """An archive of the standard library, with members of all forms that it can write."""
    file = io.BytesIO()
    if draw(st.booleans()):
        file.write(b"a program that unpacks itself" * 3)
    streamed = draw(st.booleans())  # the sizes stand behind the data
    target = Unseekable(file) if streamed else file
    with zipfile.ZipFile(target, "w") as archive:
        for name in draw(st.lists(names, max_size=5, unique=True)):
            member = zipfile.ZipInfo(name)
            member.compress_type = draw(st.sampled_from((0, 8)))
            member.comment = draw(st.binary(max_size=5))
            member.extra = draw(st.sampled_from((b"", b"\x99\x99\3\0abc")))
            with archive.open(member, "w", force_zip64=draw(st.booleans())) as stream:
                stream.write(draw(st.sampled_from((b"", b"x", bytes(999), os.urandom(300)))))
        archive.comment = draw(st.sampled_from((b"", b"words", b"PK\5\6" * 9)))
    return file.getvalue() + draw(st.sampled_from((b"", b"\r\n", bytes(700))))


class Unseekable(io.RawIOBase):
    def __init__(self, file: io.BytesIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._file.write(data)  # type: ignore[arg-type]


def by_zipfile(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {m.filename: archive.read(m) for m in archive.infolist() if not m.is_dir()}


def by_stream(archive: Archive, index: int) -> bytes:
    with archive.open(index) as stream:
        return stream.read()


@given(zips())
def test_a_zip_has_the_members_that_zipfile_finds(tmp_path_factory: Tmp, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "valid.zip"
    path.write_bytes(data)
    try:
        expected = by_zipfile(data)
    except zipfile.BadZipFile:
        assert b"PK\5\6" * 9 in data  # zipfile takes a comment for the end
        return
    archive = open_archive(path)
    assert isinstance(archive, ZipArchive)
    assert archive.names == sorted(expected)
    assert contents(archive) == expected
    assert archive.sizes == [len(expected[name]) for name in archive.names]
    for i, name in enumerate(archive.names):
        assert by_stream(archive, i) == expected[name]
        assert archive.head(i, 100) == expected[name][:100]


@given(data=zips(), position=st.integers(0), value=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=150)
def test_a_damaged_zip_is_refused_or_read_as_zipfile_reads_it(
    tmp_path_factory: Tmp, data: bytes, position: int, value: int, cut: bool
) -> None:
    position = len(data) - 1 - position % len(data)  # small examples damage the directory
    damaged = bytearray(data)
    damaged[position] ^= value
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    path.write_bytes(damaged[:position] if cut else damaged)
    if (archive := opened(ZipArchive, path)) is None:
        return
    try:
        expected = by_zipfile(path.read_bytes())
    except Exception:
        expected = {}
    for i, name in enumerate(archive.names):
        assert len(archive.head(i, 10)) <= 10
        read = streamed = None
        with suppress(ImageError):
            read = bytes(archive.read(i))
            assert expected.get(name, read) == read
            assert read[:10] == archive.head(i, 10)
        with suppress(ImageError, zipfile.BadZipFile):
            streamed = by_stream(archive, i)
            assert expected.get(name, streamed) == streamed
        # A stream reads on to the end of the compressed data, and finds damage after the last byte.
        assert read is None or streamed is None or read == streamed


def patched_end(path: Path, field: int, value: int, code: str = "<H") -> Path:
    data = bytearray(path.read_bytes())
    struct.pack_into(code, data, data.rindex(b"PK\5\6") + field, value)
    path.write_bytes(data)
    return path


def test_a_zip_that_is_not_whole_says_what_is_missing(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "set.zip", FILES)
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    assert "expected a complete zip archive: no directory at its end: it is cut off" in refusal(
        path
    )
    path.write_bytes(data)
    assert "has 6 members, expected 5" in refusal(patched_end(path, 10, 5))
    path.write_bytes(data)
    assert "join them to one archive first" in refusal(patched_end(path, 4, 1))
    path.write_bytes(data.replace(b"PK\1\2", b"PK\1\3").replace(b"PK\1\3", b"PK\1\2", 1))
    assert "its directory is damaged after 1 members" in refusal(path)


def zip_entry(name: bytes, flags: int = 0, extra: bytes = b"", offset: int = 0) -> bytes:
    """A stored member's entry in the directory; its content is `zip_member`'s."""
    crc, form = zlib.crc32(name), "<4s6H3I5H2I"
    lengths = (len(name), len(extra), 0, 0, 0)
    head = (b"PK\1\2", 20, 20, flags, 0, 0, 0, crc, len(name), len(name))
    return struct.pack(form, *head, *lengths, 0, offset) + name + extra


def zip_member(name: bytes) -> bytes:
    """A stored member whose content is its name."""
    head = (b"PK\3\4", 20, 0, 0, 0, 0, zlib.crc32(name), len(name), len(name), len(name), 0)
    return struct.pack("<4s5H3I2H", *head) + name + name


def zip_end(count: int, size: int, offset: int) -> bytes:
    return struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, size, offset, 0)


def zip_of(*members: tuple[bytes, int, bytes]) -> bytes:
    """An archive of names, flags and extra fields."""
    data = entries = b""
    for name, flags, extra in members:
        entries += zip_entry(name, flags, extra, len(data))
        data += zip_member(name)
    return data + entries + zip_end(len(members) & 0xFFFF, len(entries), len(data))


def unicode_path(raw: bytes, name: str) -> bytes:
    """Info-ZIP's extra field for a name in UTF-8."""
    value = struct.pack("<BI", 1, zlib.crc32(raw)) + name.encode()
    return b"\x55\x54\1\0x" + struct.pack("<HH", 0x7075, len(value)) + value


@pytest.mark.parametrize(
    ("raw", "flags", "extra", "name", "guessed"),
    [
        ("ä".encode(), 1 << 11, b"", "ä", False),
        ("ä".encode(), 0, b"", "ä", False),  # what Debian's zip writes
        ("a\u0308".encode(), 0, b"", "ä", False),  # what macOS writes
        (b"\x84", 0, b"", "ä", True),  # what Windows writes
        (b"\x84", 0, unicode_path(b"\x84", "字"), "字", False),
        (b"#U5b57", 0, unicode_path(b"#U5b57", "字"), "字", False),
        (b"\x84", 0, unicode_path(b"another", "字"), "ä", True),
        (b"\x84", 0, b"\x75\x70\xff\xff\1", "ä", True),
    ],
)
def test_names_of_zips_are_decoded_as_they_were_meant(
    tmp_path: Path, raw: bytes, flags: int, extra: bytes, name: str, guessed: bool
) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(zip_of((raw, flags, extra), (b"plain", 0, b"")))
    archive = open_archive(path)
    assert contents(archive) == {name: raw, "plain": b"plain"}
    assert archive.notes == (
        ("1 names are not in UTF-8 and were read as code page 437",) if guessed else ()
    )


def test_names_without_sense_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(zip_of((b"\x84", 1 << 11, b"")))
    assert r"the name b'\x84' is not valid UTF-8" in refusal(path)
    for raw in (b"", b"a\0.png"):
        path.write_bytes(zip_of((raw, 0, b""), (b"x", 0, b"")))
        assert "has no valid name" in refusal(path)


def test_a_zip_of_macos_counts_modulo_65536(tmp_path: Path) -> None:
    path, count = tmp_path / "set.zip", 65_539
    data, entries = [], []
    offset = 0
    for i in range(count):
        name = b"%d.png" % i
        entries.append(zip_entry(name, offset=offset))
        data.append(zip_member(name))
        offset += len(data[-1])
    directory = b"".join(entries)
    path.write_bytes(b"".join(data) + directory + zip_end(3, len(directory), offset))
    archive = open_archive(path)
    assert len(archive.names) == count
    assert archive.read(archive.names.index("65538.png")) == b"65538.png"


def test_a_zip_of_macos_has_offsets_modulo_4_gib(tmp_path: Path) -> None:
    path, wrap, at = tmp_path / "set.zip", 1 << 32, (1 << 32) + 5
    entries = b"".join(
        zip_entry(name, offset=offset)
        for name, offset in ((b"a.png", 0), (b"c.png", wrap >> 1), (b"b.png", at - wrap))
    )
    end = at + len(zip_member(b"b.png"))
    with path.open("wb") as file:  # with a hole: it takes no room
        file.write(zip_member(b"a.png"))
        file.seek(wrap >> 1)
        file.write(zip_member(b"c.png"))
        file.seek(at)
        file.write(zip_member(b"b.png") + entries + zip_end(3, len(entries), end - wrap))
    assert contents(open_archive(path)) == {f"{c}.png": f"{c}.png".encode() for c in "abc"}


def test_zip64_fields_are_read_and_lies_in_them_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"content")
    data = path.read_bytes()
    start = data.index(b"PK\1\2")
    for size, packed, reason in ((7, 7, ""), (1 << 40, 7, "bomb"), (7, 1 << 63, "outside")):
        entry = bytearray(data[start : data.index(b"PK\5\6")])
        struct.pack_into("<II", entry, 20, (1 << 32) - 1, (1 << 32) - 1)
        struct.pack_into("<H", entry, 30, 20)
        entry += struct.pack("<HHQQ", 1, 16, size, packed)
        path.write_bytes(data[:start] + entry + zip_end(1, len(entry), start))
        if reason:
            assert reason in refusal(path)
        else:
            assert contents(open_archive(path)) == {"a.png": b"content"}


def test_a_member_is_streamed_without_being_inflated_whole(tmp_path: Path) -> None:
    files = {"a.bin": bytes(40 << 20), "b.bin": os.urandom(1000)}
    archive = open_archive(make_zip(tmp_path / "set.zip", files))
    tracemalloc.start()
    assert archive.head(0, 16) == bytes(16)
    with archive.open(0) as stream:
        while stream.read(1 << 16):
            pass
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


# Tar


@st.composite
def tars(draw: st.DrawFn) -> tuple[bytes, dict[str, bytes]]:
    form = draw(st.sampled_from((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)))
    paths = names
    if form != tarfile.USTAR_FORMAT:
        paths = st.one_of(names, st.integers(90, 300).map("long/".ljust))
        paths = paths.map(lambda name: name.replace(" ", "_"))
    files: dict[str, bytes] = {}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name in draw(st.lists(paths, max_size=5, unique=True)):
            if draw(st.booleans()):
                folder = tarfile.TarInfo(f"folder {len(files)}/")
                folder.type = tarfile.DIRTYPE
                archive.addfile(folder)
            data = draw(st.sampled_from((b"", b"x", bytes(512), os.urandom(700))))
            member = tarfile.TarInfo(f"./{name}" if draw(st.booleans()) else name)
            member.size, member.mtime = len(data), draw(st.sampled_from((0, 1.5)))
            if form == tarfile.PAX_FORMAT:
                member.pax_headers = draw(st.sampled_from(({}, {"SCHILY.xattr.a": "b=\nc"})))
            try:
                archive.addfile(member, io.BytesIO(data))
            except ValueError:  # USTAR has no room for the name
                reject()
            files[name] = data
    return file.getvalue(), files


@given(tars(), st.sampled_from((bytes, gzip.compress, bz2.compress, lzma.compress)))
def test_a_tar_has_the_members_that_tarfile_wrote(
    tmp_path_factory: Tmp, made: tuple[bytes, dict[str, bytes]], pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "valid.tar"
    path.write_bytes(pack(made[0]))
    archive = open_archive(path)
    if not made[1]:  # nothing but zeros
        assert len(archive.names) == 1
        return
    assert isinstance(archive, TarArchive)
    assert archive.names == sorted(made[1])
    assert contents(archive) == made[1]
    assert [by_stream(archive, i) for i in range(len(made[1]))] == [
        made[1][name] for name in archive.names
    ]


def test_a_cut_tar_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "set.tar", {"a/0.png": b"x" * 600, "a" * 150: b"y"})
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))
    whole = -(-end // 512) * 512
    for length in range(512, whole + 1, 64):
        path.write_bytes(data[:length])
        assert "expected a complete tar archive: " in refusal(path)
    path.write_bytes(data[: whole + 512])
    assert len(open_archive(path).names) == 2


@given(position=st.integers(0), value=st.integers(1, 255))
@settings(max_examples=120)
def test_a_damaged_tar_is_refused_or_read(tmp_path_factory: Tmp, position: int, value: int) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    data = bytearray(make_tar(path, {"ä" * 60: b"x" * 600, "b": b"y", "c": b"z"}).read_bytes())
    data[position % len(data.rstrip(b"\0"))] ^= value
    path.write_bytes(data)
    if (archive := opened(TarArchive, path)) is None:
        return
    assert len(archive.names) == 3
    assert sorted(map(len, contents(archive).values())) == [1, 1, 600]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "is a symbolic link"),
        (tarfile.LNKTYPE, "is a hard link"),
        (tarfile.CHRTYPE, "is a device"),
        (tarfile.BLKTYPE, "is a device"),
        (tarfile.FIFOTYPE, "is a pipe"),
        (b"Z", "has type 'Z'"),
    ],
)
def test_a_member_of_a_tar_that_is_no_file_is_refused(
    tmp_path: Path, kind: bytes, reason: str
) -> None:
    path = make_tar(tmp_path / "set.tar", FILES)
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("a/link.png")
        member.type, member.linkname = kind, "a/0.png"
        archive.addfile(member)
    assert f"refused: member 'a/link.png' {reason}" in refusal(path)


def test_sparse_and_huge_members_of_a_tar_are_refused(tmp_path: Path) -> None:
    path, file = tmp_path / "set.tar", io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.png")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        archive.addfile(member)
    path.write_bytes(file.getvalue())
    assert "member 'a.png' is a sparse file" in refusal(path)
    member = tarfile.TarInfo("a.png")
    member.size = 9 << 30  # in binary
    with path.open("wb") as target:
        target.write(member.tobuf(tarfile.GNU_FORMAT))
        target.truncate((9 << 30) + 4096)  # a hole
    assert "member 'a.png' has 9,663,676,416 bytes, more than 1 GiB" in refusal(path)


def test_two_tars_in_one_file_are_refused(tmp_path: Path) -> None:
    one, two = (make_tar(tmp_path / name, {name: b"x"}) for name in ("a", "b"))
    one.write_bytes(one.read_bytes() + two.read_bytes())
    assert "more data after its end mark" in refusal(one)


def test_a_damaged_header_does_not_end_a_tar(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "set.tar", FILES)
    path.write_bytes(path.read_bytes().replace(b"b/0.png\0", b"b/9.png\0"))
    assert "damaged: no member's header at byte 3,072" in refusal(path)
    path.write_bytes(path.read_bytes().replace(b"a/0.png\0", b"a/9.png\0", 1))
    assert "damaged: no member's header at byte 0" in refusal(path)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "set.tar", {"a\udce9.png": b"x"}, tarfile.GNU_FORMAT)
    assert r"the name 'a\udce9.png' is not valid UTF-8" in refusal(path)


def test_a_packed_tar_is_inflated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inflated: list[Path] = []
    inflate = tar_module._inflate

    def spied(path: Path, *rest: object) -> int:
        inflated.append(path)
        return inflate(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(tar_module, "_inflate", spied)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    archive = open_archive(make_tgz(tmp_path / "set.tgz", FILES))
    assert contents(archive) == contents(archive.select(lambda _: True)) == FILES
    assert len(inflated) == 1
    again = pickle.loads(pickle.dumps(archive))
    assert contents(again) == contents(again) == FILES
    assert len(inflated) == 1
    assert list((tmp_path / "temporary").iterdir()) == []
    make_tgz(tmp_path / "set.tgz", FILES | {"more": bytes(20_000)})
    assert contents(pickle.loads(pickle.dumps(archive))) == FILES
    again = pickle.loads(pickle.dumps(archive))
    again._shared = None  # where a process may not open the files of another
    with pytest.raises(ImageError, match="changed after it was opened"):
        again.read(0)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_tar_that_is_cut_or_damaged_is_refused(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "set.tgz"
    noise = {f"{i}.png": os.urandom(5000) for i in range(40)}
    data = pack(make_tar(path, noise).read_bytes())
    for broken in (data[:-9], data[: len(data) // 2], data[:-50_000] + b"xx" + data[-49_998:]):
        path.write_bytes(broken)
        assert "expected a complete" in refusal(path)


def test_a_packed_tar_that_inflates_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_module, "SUSPICIOUS_SIZE", 1 << 22)
    path = make_tar(tmp_path / "set.tgz", {"a": bytes(6 << 20)})
    path.write_bytes(gzip.compress(path.read_bytes(), 9))
    assert "a decompression bomb" in refusal(path)


def test_no_room_to_inflate_a_tar_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(dir: str) -> IO[bytes]:
        assert dir == tempfile.gettempdir()
        return Path("/dev/full").open("wb", buffering=0)

    path = make_tgz(tmp_path / "set.tgz", FILES)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert "set TMPDIR to a folder with more" in refusal(path)


def test_attributes_of_members_stay_out(tmp_path: Path) -> None:
    """Files that tar programs set aside, such as git's comment, are no members."""
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w", pax_headers={"comment": "a commit"}) as archive:
        member = tarfile.TarInfo("a.png")
        member.mode = stat.S_IRUSR
        archive.addfile(member)
    assert open_archive(path).names == ["a.png"]


def test_folders_without_files_are_named(tmp_path: Path) -> None:
    """A class whose images are missing is no silent gap."""
    root = tmp_path / "root"
    for folder in ("a/x", "b", "c/d", "e", ".hidden"):
        (root / folder).mkdir(parents=True)
    (root / "a/x/1.png").write_bytes(b"1")
    (root / "e/Thumbs.db").write_bytes(b"1")
    with zipfile.ZipFile(tmp_path / "root.zip", "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    with zipfile.ZipFile(tmp_path / "full.zip", "w") as archive:
        archive.writestr("a/", b"")
        archive.writestr("a/x/1.png", b"1")
    assert open_archive(root).notes == ("folders without files: b, c/d, e",)
    assert open_archive(tmp_path / "full.zip").notes == ()
    [note] = open_archive(tmp_path / "root.zip").notes
    assert note == "folders without files: root/b, root/c/d, root/e"
