"""The 62 characters of the MIDAS task, in the order of their classes, and folders that mean one."""

import re
import string

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase

_SAMPLE = re.compile(r"Sample([0-9]{3})", re.IGNORECASE)
_HEX_CODES = re.compile(r"[0-9a-f]{2}(_[0-9a-f]{2})*", re.IGNORECASE)


def sample_number(folder: str) -> int | None:
    """Return N of a folder SampleN, as MIDAS part 1 and Chars74K number their classes from 1."""
    match = _SAMPLE.fullmatch(folder)
    return int(match[1]) if match else None


def sample_character(folder: str) -> str | None:
    """Return the character of a folder Sample001 … Sample062, None for any other folder."""
    number = sample_number(folder)
    return CHARACTERS[number - 1] if number and number <= len(CHARACTERS) else None


def hex_character(folder: str) -> str | None:
    """Return the character of a folder of NIST SD19: "41" is A, "43_63" is C/c; None otherwise."""
    if not _HEX_CODES.fullmatch(folder):
        return None
    characters = [chr(int(code, 16)) for code in folder.split("_")]
    return "/".join(characters) if all(c in CHARACTERS for c in characters) else None
