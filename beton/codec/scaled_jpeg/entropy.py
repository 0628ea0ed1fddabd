"""The kernel of entropy decoding (ITU-T T.81, annex F): bytes to coefficients.

The time goes to a chain of dependent steps: bits, entry of a table, length, next bits. So an entry
has several symbols, and the symbols' coefficients are stored without a branch. The stuffed zeros
after bytes 255 are removed first, so that eight bytes at a time can be loaded. All positions are
unsigned: numba then leaves out the code for negative indices.
"""

from typing import Any

import numpy as np

from beton.arrays import Array, Int64Array, Uint8Array
from beton.jit import kernel, load_bits

Unsigned = Any  # uint64

PADDING = 512  # bytes after the data: a block has at most 63 * 26 + 27 bits
WINDOW = 10  # bits: with more, the tables do not fit into the CPU's first cache
SKIP_WINDOW = 13  # bits
BLOCK_END = 64  # steps
EOI, RST = 0xD9, 0xD0
DC_LIMIT = 2048  # a DC coefficient of 8 bits is smaller
READS, SKIPS = 5, 4  # lookups between refills to 56 bits: they take WINDOW or SKIP_WINDOW each
MARGIN = 256  # numbers that may be written after the last block

ONE, TWO, THREE, SIX, EIGHT = (np.uint64(number) for number in (1, 2, 3, 6, 8))
FULL, LAST, BYTE = (np.uint64(number) for number in (56, 63, 255))
SIZE, STEP = np.uint64(1 << WINDOW), np.uint64(WINDOW + 1)
ONES, HIGHEST = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
UNUSED, SKIP_UNUSED = np.uint64(64 - WINDOW), np.uint64(64 - SKIP_WINDOW)


@kernel
def _unsigned(number: Any) -> Unsigned:
    return np.uint64(number)


@kernel
def _signed(number: Any) -> Any:
    return np.int64(number)


@kernel
def _has_255(word: Unsigned) -> bool:
    """Return whether one of the eight bytes of a word is 255."""
    inverted = ~word
    return bool((inverted - ONES) & ~inverted & HIGHEST)


@kernel
def _unstuff(data: Uint8Array, start: int, starts: Int64Array, out: Uint8Array) -> bool:
    """Copy entropy-coded data from `start` on without stuffed zeros and restart markers.

    starts (n + 1,) are filled with the start of each of n parts, and the end. Returns False if
    there is another number of parts, another marker, or no EOI after them.
    """
    at, to, stop = _unsigned(start), _unsigned(0), _unsigned(data.size)
    parts = 1
    starts[0] = 0
    while at < stop:
        while at + EIGHT <= stop and not _has_255(load_bits(data, at)):
            for k in range(8):
                out[to + _unsigned(k)] = data[at + _unsigned(k)]
            at += EIGHT
            to += EIGHT
        while at < stop and data[at] != 255:
            out[to] = data[at]
            at += ONE
            to += ONE
        if at + ONE >= stop:
            return False
        following = data[at + ONE]
        at += TWO
        if following == 0:
            out[to] = 255
            to += ONE
            continue
        starts[parts] = to
        if parts == starts.size - 1:
            out[to : to + _unsigned(PADDING)] = 0
            return bool(following == EOI)
        if following != RST + ((parts - 1) & 7):
            return False
        parts += 1
    return False


@kernel
def _refill(
    data: Uint8Array, at: Unsigned, bits: Unsigned, count: Unsigned
) -> tuple[Unsigned, Unsigned, Unsigned]:
    """Return position, bits and count after a refill to at least 56 bits, the next one highest.

    Some bits below `count` may be set already, to the values that the data has there.
    """
    bits |= load_bits(data, at) >> count
    return at + (LAST - count >> THREE), bits, count | FULL


@kernel
def _symbol(
    bits: Unsigned, k: Unsigned, pair: Unsigned, codes: Array
) -> tuple[Unsigned, int, Unsigned]:
    """Return place, value and length of the next symbol; length 0 if it is not valid there.

    The place is the number of coefficients of the block up to the symbol's, or BLOCK_END.
    """
    none = _unsigned(0)
    table = pair << ONE | (ONE if k else none)
    code = _signed(codes[table << _unsigned(16) | bits >> _unsigned(48)])
    symbol = code >> 8
    size = symbol & 15
    length = code & 255
    if code == 0:
        return k, 0, none
    place = k + ONE
    if k:
        place += _unsigned(symbol >> 4)
        if symbol == 0:
            place = _unsigned(BLOCK_END)
        elif place > _unsigned(BLOCK_END):
            return k, 0, none
    if size == 0:
        return place, 0, _unsigned(length)
    value = _signed(bits << _unsigned(length) >> _unsigned(64 - size))
    if value < 1 << (size - 1):
        value -= (1 << size) - 1
    return place, value, _unsigned(length + size)


@kernel
def _read(
    mcus: int,
    reader: tuple[Unsigned, Unsigned, Unsigned],
    limit: Unsigned,
    data: Uint8Array,
    components: Int64Array,
    predicted: Int64Array,
    entries: Array,
    codes: Array,
    out: Array,
    base: Unsigned,
) -> tuple[bool, tuple[Unsigned, Unsigned, Unsigned]]:
    """Write the coefficients of MCUs after out[base]; return whether all symbols are valid.

    The reader (position, bits and count) after them is returned too. Numbers that are written
    behind a block are zero in the end, and the next block is written later.
    """
    at, bits, count = reader
    for _ in range(mcus):
        for c in range(3):
            pair = _unsigned(components[c, 1])
            start = pair << STEP
            rest = start + SIZE
            for _ in range(components[c, 0]):
                k = _unsigned(0)
                table = start
                while k < _unsigned(BLOCK_END):
                    at, bits, count = _refill(data, at, bits, count)
                    for _ in range(READS):
                        entry = entries[table + (bits >> UNUSED)]
                        table = rest
                        one = base + k + (entry >> EIGHT & BYTE)
                        out[one] = np.int16(entry >> _unsigned(32))
                        after = k + (entry >> _unsigned(16) & BYTE)
                        out[base + after] = np.int16(entry >> _unsigned(48))
                        length = entry & BYTE
                        if after >= _unsigned(BLOCK_END):
                            if after & _unsigned(BLOCK_END):
                                out[one] = 0
                                out[base + after] = 0
                                at, bits, count = _refill(data, at, bits, count)
                                after, value, length = _symbol(bits, k, pair, codes)
                                if length == 0:
                                    return False, (at, bits, count)
                                out[base + after] = np.int16(value)
                            bits <<= length & LAST
                            count -= length
                            k = after
                            break
                        bits <<= length & LAST
                        count -= length
                        k = after
                dc = predicted[c] + out[base + ONE]
                if at > limit or abs(dc) >= DC_LIMIT:
                    return False, (at, bits, count)
                predicted[c] = dc
                out[base + ONE] = np.int16(dc)
                base += _unsigned(64)
    return True, (at, bits, count)


@kernel
def _skip(
    mcus: int,
    reader: tuple[Unsigned, Unsigned, Unsigned],
    limit: Unsigned,
    data: Uint8Array,
    components: Int64Array,
    predicted: Int64Array,
    entries: Array,
    skips: Array,
    codes: Array,
) -> tuple[bool, tuple[Unsigned, Unsigned, Unsigned]]:
    """Do what `_read` does, but write no coefficients."""
    at, bits, count = reader
    for _ in range(mcus):
        for c in range(3):
            pair = _unsigned(components[c, 1])
            start = pair << STEP
            table = pair << _unsigned(SKIP_WINDOW)
            for _ in range(components[c, 0]):
                at, bits, count = _refill(data, at, bits, count)
                entry = entries[start + (bits >> UNUSED)]
                length = entry & BYTE
                k = entry >> _unsigned(16) & BYTE
                difference = _signed(np.int16(entry >> _unsigned(32)))
                if k & _unsigned(BLOCK_END):
                    k, difference, length = _symbol(bits, _unsigned(0), pair, codes)
                    if length == 0:
                        return False, (at, bits, count)
                bits <<= length & LAST
                count -= length
                while k < _unsigned(BLOCK_END):
                    at, bits, count = _refill(data, at, bits, count)
                    for _ in range(SKIPS):
                        skip = _unsigned(skips[table + (bits >> SKIP_UNUSED)])
                        length = skip & LAST
                        after = k + (skip >> SIX)
                        if after >= _unsigned(BLOCK_END):
                            if after & _unsigned(BLOCK_END):
                                at, bits, count = _refill(data, at, bits, count)
                                after, _, length = _symbol(bits, k, pair, codes)
                                if length == 0:
                                    return False, (at, bits, count)
                            bits <<= length
                            count -= length
                            k = after
                            break
                        bits <<= length
                        count -= length
                        k = after
                dc = predicted[c] + difference
                if at > limit or abs(dc) >= DC_LIMIT:
                    return False, (at, bits, count)
                predicted[c] = dc
    return True, (at, bits, count)


@kernel
def decode(
    data: Uint8Array,
    start: int,
    interval: int,
    shape: tuple[int, int],
    window: tuple[int, int, int, int],
    is_intact: bool,
    components: Int64Array,
    entries: Array,
    skips: Array,
    codes: Array,
    clean: Uint8Array,
    out: Array,
) -> bool:
    """Write the coefficients of a window of MCUs; return whether all of the data is regular.

    There is a restart marker after each `interval` MCUs. `shape` are the rows and columns of MCUs
    of the image, `window` first and end of the window's rows, then of its columns. Data that
    `is_intact` is not decoded after the window. `components` (3, 2) has the blocks of each
    component in an MCU, and its pair of tables; the tables are those of `Huffman`. `clean` is
    memory, uint8 (bytes of data + PADDING,). After its first number, `out`, int16
    (1 + 64 * blocks + MARGIN,), gets the 64 coefficients of each block of the window in zigzag
    order, the blocks in the order of the file.
    """
    out[:] = 0
    rows, columns = shape
    top, bottom, left, right = window
    parts = (rows * columns + interval - 1) // interval
    starts = np.empty(parts + 1, np.int64)
    if not _unstuff(data, start, starts, clean):
        return False
    predicted = np.zeros(3, np.int64)
    reader = _unsigned(0), _unsigned(0), _unsigned(0)
    base = _unsigned(0)
    size = _unsigned(64 * components[:, 0].sum())
    mcu = 0
    for part in range(parts):
        reader = _unsigned(starts[part]), _unsigned(0), _unsigned(0)
        end = _unsigned(starts[part + 1]) * EIGHT
        limit = _unsigned(starts[part + 1]) + EIGHT
        predicted[:] = 0
        last = min((part + 1) * interval, rows * columns)
        while mcu < last:
            y, x = mcu // columns, mcu % columns
            is_inside = top <= y < bottom and left <= x < right
            until = columns
            if is_inside:
                until = right
            elif top <= y < bottom and x < left:
                until = left
            length = min(until - x, last - mcu)
            if is_inside:
                is_valid, reader = _read(
                    length,
                    reader,
                    limit,
                    clean,
                    components,
                    predicted,
                    entries,
                    codes,
                    out,
                    base,
                )
                base += _unsigned(length) * size
            else:
                is_valid, reader = _skip(
                    length,
                    reader,
                    limit,
                    clean,
                    components,
                    predicted,
                    entries,
                    skips,
                    codes,
                )
            if not is_valid:
                return False
            mcu += length
            if is_intact and (bottom - 1) * columns + right <= mcu < rows * columns:
                return True
        if end - (reader[0] * EIGHT - reader[2]) >= EIGHT:
            return False
    return True
