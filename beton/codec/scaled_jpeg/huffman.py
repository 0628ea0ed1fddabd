"""Huffman codes (ITU-T T.81, annexes C and F) as tables that are looked up with bits of the data.

An entry of a table describes the symbols that the next bits hold completely, with their additional
bits. Blocks that are decoded have two tables, looked up with `WINDOW` bits: for the start of a
block (a DC symbol, perhaps an AC symbol) and for the rest of it (one or two AC symbols). An entry:

    bits 0-7    length of the symbols
    bits 8-15   steps to the first symbol's coefficient
    bits 16-23  steps that all symbols advance in the block; from END on, to its end
    bits 32-47  value of the first coefficient, signed
    bits 48-63  value of the second one; without a second symbol, that of the first

The coefficient of a DC symbol is the first of the block, and its value is the difference.

Blocks that are skipped have a table for any number of AC symbols, looked up with `SKIP_WINDOW`
bits. Its entry has the length in bits 0-5 and the steps above. In all tables, the steps of bits
without a valid symbol are BLOCK_END, which are too many for every symbol.

`codes` is looked up with the next 16 bits: symbol << 8 | length of its code, 0 if there is none.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from beton.arrays import Array
from beton.jit import kernel

WINDOW = 10  # bits: with more, tables do not fit into the CPU's first cache
SKIP_WINDOW = 13  # bits
BLOCK_END = 64  # steps
END = 128  # steps
LARGEST_DC, LARGEST_AC = 11, 10  # additional bits of a symbol, in images of 8 bits
CACHED = 8  # sets of tables, each of about half a megabyte
START, REST = 0, 1


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
def make_tables(content: bytes, selectors: tuple[tuple[int, int], ...]) -> Huffman | None:
    """Return the tables of the contents of all DHT segments; None if one is not valid or missing.

    `selectors` has the numbers of the DC and the AC table of each component.
    """
    found: dict[int, tuple[Array, Array]] = {}
    at = 0
    while at + 17 <= len(content):
        counts = np.frombuffer(content, np.uint8, 16, at + 1).astype(np.int64)
        symbols = np.frombuffer(content[at + 17 : at + 17 + int(counts.sum())], np.uint8)
        if symbols.size != counts.sum() or symbols.size > 256:
            return None
        found[content[at]] = counts, symbols
        at += 17 + symbols.size
    different = list(dict.fromkeys(selectors))
    numbers = [16 * kind + pair[kind] for pair in different for kind in (START, REST)]
    if at != len(content) or not found.keys() >= set(numbers):
        return None
    codes = np.zeros((len(different), 2, 1 << 16), np.uint16)
    for row, number in zip(codes.reshape(len(numbers), -1), numbers, strict=True):
        if not _fill_codes(*found[number], row):
            return None
    entries = np.zeros((len(different), 2, 1 << WINDOW), np.uint64)
    skips = np.zeros((len(different), 1 << SKIP_WINDOW), np.uint16)
    for pair in range(len(different)):
        _fill_entries(codes[pair], entries[pair])
        _fill_skips(codes[pair, REST], skips[pair])
    pairs = tuple(different.index(pair) for pair in selectors)
    return Huffman(entries.ravel(), skips.ravel(), codes.ravel(), pairs)


@kernel
def _fill_codes(counts: Array, symbols: Array, codes: Array) -> bool:
    """Fill a row of codes; return whether they are a prefix code."""
    code = 0
    k = 0
    for length in range(1, 17):
        for _ in range(counts[length - 1]):
            if code >= 1 << length:
                return False
            first = code << (16 - length)
            codes[first : first + (1 << (16 - length))] = np.int64(symbols[k]) << 8 | length
            code += 1
            k += 1
        code <<= 1
    return True


@kernel
def _symbol(bits: int, left: int, is_dc: bool, codes: Array) -> tuple[int, int, int]:
    """Return steps, value and length of the symbol that begins 16 bits, of which `left` are known.

    The length is 0 if the symbol is longer, or not valid.
    """
    code = np.int64(codes[bits])
    symbol = code >> 8
    run, size = (0, symbol) if is_dc else (symbol >> 4, symbol & 15)
    length = (code & 255) + size
    if code == 0 or length > left or size > (LARGEST_DC if is_dc else LARGEST_AC):
        return 0, 0, 0
    if size == 0:
        steps = run + 1
        if not is_dc and run == 0:
            steps = END
        elif run not in (0, 15):
            length = 0
        return steps, 0, length
    value = (bits >> (16 - length)) & ((1 << size) - 1)
    if value < 1 << (size - 1):
        value -= (1 << size) - 1
    return run + 1, value, length


@kernel
def _fill_entries(codes: Array, entries: Array) -> None:
    """Fill entries (2, 2 ** WINDOW) from codes (2, 2 ** 16)."""
    for table in range(2):
        for window in range(1 << WINDOW):
            bits = window << (16 - WINDOW)
            steps, value, length = _symbol(bits, WINDOW, table == START, codes[table])
            more, other, longer = 0, value, 0
            if length == 0:
                steps = BLOCK_END
            elif steps < END:
                bits = bits << length & 0xFFFF
                more, other, longer = _symbol(bits, WINDOW - length, False, codes[REST])
                if longer == 0:
                    more, other = 0, value
            entry = (length + longer) | steps << 8 | (steps + more) << 16
            entry |= (value & 0xFFFF) << 32 | (other & 0xFFFF) << 48
            entries[table, window] = np.uint64(entry)


@kernel
def _fill_skips(codes: Array, skips: Array) -> None:
    """Fill skips (2 ** SKIP_WINDOW,) from the codes of AC symbols."""
    for window in range(1 << SKIP_WINDOW):
        bits = window << (16 - SKIP_WINDOW)
        total = 0
        left = SKIP_WINDOW
        while total < BLOCK_END:
            steps, _, length = _symbol(bits, left, False, codes)
            if length == 0 or (steps < END and total + steps >= BLOCK_END):
                break
            total += steps
            left -= length
            bits = bits << length & 0xFFFF
        skips[window] = SKIP_WINDOW - left | (total or BLOCK_END) << 6
