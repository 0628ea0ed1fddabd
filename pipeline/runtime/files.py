"""Files of a run directory: each appears whole or not at all; a damaged one is a UserError.

JSON becomes the dataclass that was written, checked field by field (msgspec); tensors are in the
safetensors format. SHA256SUMS holds the digests of a folder's files, in the format of sha256sum:
`seal` writes it last, and every read of a file that it lists checks the file first.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from beton.errors import printable
from pipeline.errors import UserError
from pipeline.runtime.storage import Folder, check_links

T = TypeVar("T")
DIGESTS = "SHA256SUMS"
MAX_TEXT = 1 << 28  # bytes of a JSON file


def convert(value: object, kind: type[T]) -> T:
    """Make a dataclass of plain data. Raises ValueError that names the field, got and expected.

    A field that the dataclass does not have is an error too: it may be misspelt.
    """
    try:
        made = msgspec.convert(value, kind, dec_hook=lambda kind, value: kind(value))
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    _check_fields(value, made, "$")
    return made


def _check_fields(value: Any, made: object, where: str) -> None:
    if is_dataclass(made):
        if unknown := value.keys() - {field.name for field in fields(made)}:
            raise ValueError(
                f"Object contains unknown field `{min(unknown)}` - at `{where}`; it is misspelt "
                "or of a newer version"
            )
        for name, one in value.items():
            _check_fields(one, getattr(made, name), f"{where}.{name}")
    elif isinstance(made, str):
        made.encode()  # JSON can hold half a character, which cannot be printed
    elif isinstance(made, dict):
        for name, one in made.items():
            _check_fields(value[name], one, f"{where}.{name}")
    elif isinstance(made, list | tuple):
        for old, new in zip(value, made, strict=True):
            _check_fields(old, new, f"{where}[]")


def read_bytes(path: Path, most: int = MAX_TEXT) -> bytes:
    """Return a file of a folder, after a check of its digest if the folder has digests.

    Raises UserError if it is missing, a link or a special file, larger than `most` bytes, or other
    than its digest.
    """
    try:
        with Folder(path.parent) as folder:
            content = folder.read(path.name, most)
            expected = digests(folder).get(path.name)
    except (FileNotFoundError, NotADirectoryError) as error:
        why = f"it has no {path.name}"
        if not path.parent.is_dir():
            why = "it is a file" if path.parent.exists() else "there is no such folder"
        raise UserError(f"{path.parent}: not a run directory: {why}") from error
    if expected not in (None, hashlib.sha256(content).hexdigest()):
        raise UserError(f"{path}: damaged: its SHA-256 is not that in {DIGESTS}")
    return content


def digests(folder: Folder) -> dict[str, str]:
    """Return the SHA-256 of files by name, which `seal` wrote: none for a folder without them."""
    if folder.kind(DIGESTS) is None:
        return {}
    lines = folder.read(DIGESTS, MAX_TEXT).decode(errors="replace").splitlines()
    matches = [re.fullmatch("([0-9a-f]{64})  ([^/]+)", line) for line in lines]
    found = {match[2]: match[1] for match in matches if match}
    if not lines or len(found) < len(lines):
        raise UserError(f"{folder.path / DIGESTS}: damaged: got lines that are no digests")
    return found


def seal(folder: Folder, coming: Mapping[str, bytes] | None = None) -> None:
    """Write the digests of all JSON files and tensors in a folder, once they are on disk.

    `coming` are the files that the caller writes next, by name.
    """
    names = [n for n in folder.names() if re.fullmatch(r"[^.].*\.(jsonl?|safetensors)", n)]
    found = {name: folder.digest(name) for name in names}
    found |= {name: hashlib.sha256(content).hexdigest() for name, content in (coming or {}).items()}
    lines = "".join(f"{found[name]}  {name}\n" for name in sorted(found))
    folder.write(DIGESTS, lines.encode(), sync=True)


def write_bytes(path: Path, content: bytes, sync: bool = False) -> None:
    """Write a file of a folder, as `Folder.write` does; drop its earlier digest, if it has one."""
    with Folder(path.parent) as folder:
        listed = digests(folder)
        if listed.pop(path.name, None):
            lines = "".join(f"{digest}  {name}\n" for name, digest in listed.items())
            folder.write(DIGESTS, lines.encode()) if lines else folder.remove(DIGESTS)
        folder.write(path.name, content, sync)


def read(path: Path, parse: Callable[[str], T]) -> T:
    """Return the result of `parse` on a text file of a run directory.

    Raises UserError as `read_bytes` does, and if `parse` raises ValueError or TypeError.
    """
    content = read_bytes(path)
    try:
        return parse(content.decode())
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise damaged(path, error) from error


def read_as(path: Path, kind: type[T]) -> T:
    """Return a JSON file of a run directory as a dataclass. Raises UserError if it does not fit."""
    return read(path, lambda text: convert(json.loads(text), kind))


def read_json(run: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file of a run directory.

    Raises UserError for anything else, and for a run directory with links (`check_links`).
    """
    check_links(run)
    value = read(run / name, json.loads)
    if not isinstance(value, dict):
        raise UserError(f"{run / name}: got a {type(value).__name__}, expected an object")
    return value


def read_tensors(path: Path, device: torch.device | None = None) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file. Raises UserError if it is missing or damaged."""
    return _tensors(path, read_bytes(path, memory()), device)


def read_cached(path: Path, key: Mapping[str, str]) -> dict[str, Tensor] | None:
    """Return the tensors that `write_tensors` wrote with the metadata `key`.

    None if the file is missing or has other metadata. Raises UserError if it is damaged.
    """
    if not path.exists():
        return None
    content = read_bytes(path, memory())
    tensors = _tensors(path, content, None)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return tensors if header.get("__metadata__") == key else None


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors and their metadata as a safetensors file."""
    write_bytes(path, tensor_bytes(tensors, metadata), sync=True)


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return the content of a safetensors file of tensors and their metadata."""
    plain = {name: t.detach().contiguous().cpu() for name, t in tensors.items()}
    return safetensors.torch.save(plain, metadata)


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error for a file whose content is not what was written, in one line."""
    return UserError(f"{path}: damaged: {printable(str(error))}")


def _tensors(path: Path, content: bytes, device: torch.device | None) -> dict[str, Tensor]:
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise damaged(path, error) from error
    return {name: tensor.to(device or "cpu") for name, tensor in tensors.items()}


def memory() -> int:
    """Return the bytes of this machine's memory: no file that is larger can be loaded."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
