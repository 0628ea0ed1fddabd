"""Huffman codes (ITU-T T.81, annexes C and F) as tables that are looked up with bits of the data.

An entry of a table describes the symbols that the next bits hold completely, with their additional
bits. Blocks that are decoded have two tables, looked up with WINDOW bits: for the start of a
block (a DC symbol, perhaps an AC symbol) and for the rest of it (one or two AC symbols). An entry:

    bits 0-7    length of the symbols
    bits 8-15   steps to the first symbol's coefficient
    bits 16-23  steps that all symbols advance in the block; from END on, to its end
    bits 32-47  value of the first coefficient, signed
    bits 48-63  value of the second one, whose steps are bits 16-23, modulo END

The coefficient of a DC symbol is the first of the block, and its value is the difference. Without a
second coefficient, it is the first one again. An entry that only ends a block has the value 0 for
the next coefficient, which is 0 anyway.

Blocks that are skipped have a table for any number of AC symbols, looked up with SKIP_WINDOW
bits. Its entry has the length in bits 0-5 and the steps above. In all tables, the steps of bits
without a valid symbol are BLOCK_END, which are too many for every symbol.

`codes` is looked up with the next 16 bits: symbol << 8 | length of its code, 0 if there is none.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from beton.arrays import Array
from beton.codec.scaled_jpeg.entropy import BLOCK_END, SKIP_WINDOW, WINDOW
from beton.jit import kernel

END = 128  # steps
LARGEST_DC, LARGEST_AC = 11, 10  # additional bits of a symbol, in images of 8 bits
CACHED = 8  # sets of tables, each of about half a megabyte
START, REST = 0, 1
NUMBERS = (*range(4), *range(16, 20))  # of tables: DC, AC


@dataclass(frozen=True, eq=False)
class Huffman:
    """Tables of the different pairs of a DC and an AC table that components use.

    entries are uint64 (pairs, 2, 2 ** WINDOW) and codes uint16 (pairs, 2, 2 ** 16), for START (DC)
    and REST (AC); skips are uint16 (pairs, 2 ** SKIP_WINDOW). All are flat. `pairs` has the pair of
    each component.
    """

    entries: Array
    skips: Array
    codes: Array
    pairs: tuple[int, ...]


@lru_cache(CACHED)
def make_tables(
    segments: tuple[bytes, ...], selectors: tuple[tuple[int, int], ...]
) -> Huffman | None:
    """Return the tables of the contents of DHT segments; None if one is not valid or missing.

    `selectors` has the numbers of the DC and the AC table of each component.
    """
    found: dict[int, tuple[Array, Array]] = {}
    for content in segments:
        at = 0
        while at + 17 <= len(content):
            counts = np.frombuffer(content, np.uint8, 16, at + 1).astype(np.int64)
            symbols = np.frombuffer(content[at + 17 : at + 17 + int(counts.sum())], np.uint8)
            is_valid = content[at] in NUMBERS and symbols.size == counts.sum() <= 256
            if not is_valid or (content[at] < 16 and symbols.max(initial=0) > 15):
                return None
            found[content[at]] = counts, symbols
            at += 17 + symbols.size
        if at != len(content):
            return None
    different = list(dict.fromkeys(selectors))
    numbers = [16 * kind + pair[kind] for pair in different for kind in (START, REST)]
    if not found.keys() >= set(numbers):
        return None
    codes = np.zeros((len(different), 2, 1 << 16), np.uint16)
    for row, number in zip(codes.reshape(len(numbers), -1), numbers, strict=True):
        if not _fill_codes(*found[number], number < 16, row):
            return None
    entries = np.zeros((len(different), 2, 1 << WINDOW), np.uint64)
    skips = np.zeros((len(different), 1 << SKIP_WINDOW), np.uint16)
    for pair in range(len(different)):
        _fill_entries(codes[pair], WINDOW, entries[pair])
        _fill_skips(codes[pair, REST], SKIP_WINDOW, skips[pair])
    pairs = tuple(different.index(pair) for pair in selectors)
    return Huffman(entries.ravel(), skips.ravel(), codes.ravel(), pairs)


@kernel
def _is_valid(symbol: int, is_dc: bool) -> bool:
    """Return whether a symbol occurs in images of 8 bits."""
    if is_dc:
        return symbol <= LARGEST_DC
    size = symbol & 15
    return size <= LARGEST_AC and (size > 0 or symbol in (0, 0xF0))


@kernel
def _fill_codes(counts: Array, symbols: Array, is_dc: bool, codes: Array) -> bool:
    """Fill a row of codes; return whether they are a prefix code."""
    code = 0
    k = 0
    for length in range(1, 17):
        for _ in range(counts[length - 1]):
            if code >= (1 << length) - 1:  # the code of ones only is reserved
                return False
            symbol = int(symbols[k])
            if _is_valid(symbol, is_dc):
                first = code << (16 - length)
                codes[first : first + (1 << (16 - length))] = symbol << 8 | length
            code += 1
            k += 1
        code <<= 1
    return True


@kernel
def _symbol(bits: int, left: int, is_dc: bool, codes: Array) -> tuple[int, int, int]:
    """Return steps, value and length of the symbol that begins 16 bits, of which `left` are known.

    The length is 0 if the symbol is longer, or not valid.
    """
    code: Any = np.int64(codes[bits])
    symbol = code >> 8
    size = symbol & 15
    length = (code & 255) + size
    if code == 0 or length > left:
        return 0, 0, 0
    steps = 1 if is_dc else (symbol >> 4) + 1
    if size == 0:
        return (END if symbol == 0 and not is_dc else steps), 0, length
    value = (bits >> (16 - length)) & ((1 << size) - 1)
    if value < 1 << (size - 1):
        value -= (1 << size) - 1
    return steps, value, length


@kernel
def _fill_entries(codes: Array, window: int, entries: Array) -> None:
    """Fill entries (2, 2 ** window) from codes (2, 2 ** 16)."""
    for table in range(2):
        for index in range(1 << window):
            bits = index << (16 - window)
            steps, value, length = _symbol(bits, window, table == START, codes[table])
            first, total = steps, steps
            more, other, longer = 0, value, 0
            if length == 0:
                first, total = BLOCK_END, BLOCK_END
            elif steps == END:
                first, total = 1, END + 1
            else:
                bits = bits << length & 0xFFFF
                more, other, longer = _symbol(bits, window - length, False, codes[REST])
                if longer == 0 or more == END:
                    other = value
                total += more
            entry = (length + longer) | first << 8 | total << 16
            entry |= (value & 0xFFFF) << 32 | (other & 0xFFFF) << 48
            entries[table, index] = np.uint64(entry)


@kernel
def _fill_skips(codes: Array, window: int, skips: Array) -> None:
    """Fill skips (2 ** window,) from the codes of AC symbols."""
    for index in range(1 << window):
        bits = index << (16 - window)
        total = 0
        left = window
        while total < BLOCK_END:
            steps, _, length = _symbol(bits, left, False, codes)
            if length == 0 or (steps < END and total + steps >= BLOCK_END):
                break
            total += steps
            left -= length
            bits = bits << length & 0xFFFF
        skips[index] = window - left | (total or BLOCK_END) << 6
