"""The kernels of entropy decoding (ITU-T T.81, annex F): bytes to coefficients.

The time goes to a chain of dependent steps: bits, entry of a table, length, next bits. So an entry
has several symbols, and the symbols' coefficients are stored without a branch. The stuffed zeros
after bytes 255 are removed first, so that eight bytes at a time can be loaded. All positions are
unsigned: numba then leaves out the code for negative indices.
"""

from typing import Any

import numpy as np

from beton.arrays import Array, Int64Array, Uint8Array
from beton.codec.vectors import COPIED, LANE_BITS, LANES, copy_bytes
from beton.jit import kernel, load_bits, signed, unsigned

Unsigned = Any  # uint64

PADDING = 512  # bytes after the data: a block has at most 63 * 26 + 27 bits
WINDOW = 10  # bits: with more, the tables do not fit into the CPU's first cache
SKIP_WINDOW = 13  # bits
BLOCK_END = 64  # steps
EOI, RST = 0xD9, 0xD0
DC_LIMIT = 2048  # a DC coefficient of 8 bits is smaller
READS, SKIPS = 5, 4  # lookups between refills to 56 bits: they take WINDOW or SKIP_WINDOW each
BLOCK_NUMBERS = 64 * LANES

ONE, TWO, THREE, SIX, EIGHT = (np.uint64(number) for number in (1, 2, 3, 6, 8))
WIDTH = np.uint64(COPIED)
FULL, LAST, BYTE = (np.uint64(number) for number in (56, 63, 255))
SIZE, STEP = np.uint64(1 << WINDOW), np.uint64(WINDOW + 1)
# Steps in a block, counted in numbers.
WHOLE, STEPS, INSIDE = (np.uint64(steps * LANES) for steps in (64, 255, 127))
UNIT, FIRST, AFTER = (np.uint64(bits) for bits in (LANE_BITS, 8 - LANE_BITS, 16 - LANE_BITS))
UNUSED, SKIP_UNUSED = np.uint64(64 - WINDOW), np.uint64(64 - SKIP_WINDOW)


@kernel
def unstuff(data: Uint8Array, start: int, starts: Int64Array, out: Uint8Array) -> bool:
    """Copy entropy-coded data from `start` on without stuffed zeros and restart markers.

    starts (n + 1,) are filled with the start of each of n parts, and the end. Returns False if
    there is another number of parts, another marker, or no EOI after them.
    """
    at, to, stop = unsigned(start), unsigned(0), unsigned(data.size)
    parts = 1
    starts[0] = 0
    while at < stop:
        found = WIDTH
        while found == WIDTH and at + WIDTH <= stop:
            found = copy_bytes(data, at, out, to)  # what follows a byte 255 is written over later
            at += found
            to += found
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
            out[to : to + unsigned(PADDING)] = 0
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
    none = unsigned(0)
    table = pair << ONE | (ONE if k else none)
    code = signed(codes[table << unsigned(16) | bits >> unsigned(48)])
    symbol = code >> 8
    size = symbol & 15
    length = code & 255
    if code == 0:
        return k, 0, none
    place = k + ONE
    if k:
        place += unsigned(symbol >> 4)
        if symbol == 0:
            place = unsigned(BLOCK_END)
        elif place > unsigned(BLOCK_END):
            return k, 0, none
    if size == 0:
        return place, 0, unsigned(length)
    value = signed(bits << unsigned(length) >> unsigned(64 - size))
    if value < 1 << (size - 1):
        value -= (1 << size) - 1
    return place, value, unsigned(length + size)


@kernel
def read(
    mcus: int,
    column: int,
    reader: tuple[Unsigned, Unsigned, Unsigned],
    limit: Unsigned,
    data: Uint8Array,
    components: Int64Array,
    regions: Int64Array,
    predicted: Int64Array,
    entries: Array,
    codes: Array,
    out: Array,
) -> tuple[bool, tuple[Unsigned, Unsigned, Unsigned]]:
    """Write the coefficients of MCUs from a `column` on; return whether all symbols are valid.

    The reader (position, bits and count) after them is returned too. Steps in a block are counted
    in units of LANES here, the distance of its coefficients in `out`. What is written behind a
    block, for symbols that are not valid there, is zero in the end.
    """
    at, bits, count = reader
    for mcu in range(column, column + mcus):
        for c in range(3):
            across, down, pair, _ = components[c]
            inner = across - 1  # across is 1 or 2
            start = unsigned(pair) << STEP
            rest = start + SIZE
            for block in range(across * down):
                place = (mcu << inner) + (block & inner)
                row = regions[c, 0] + (block >> inner) * regions[c, 1]
                base = unsigned(row + (place >> LANE_BITS) * BLOCK_NUMBERS + (place & (LANES - 1)))
                k = unsigned(0)
                table = start
                while k < WHOLE:
                    at, bits, count = _refill(data, at, bits, count)
                    for _ in range(READS):
                        entry = entries[table + (bits >> UNUSED)]
                        table = rest
                        after = k + (entry >> AFTER & STEPS)
                        first = base + k + (entry >> FIRST & STEPS)
                        second = base + (after & INSIDE)
                        out[first] = np.int16(entry >> unsigned(32))
                        out[second] = np.int16(entry >> unsigned(48))
                        length = entry & BYTE
                        if after >= WHOLE:
                            if after & WHOLE:
                                out[first] = 0
                                out[second] = 0
                                at, bits, count = _refill(data, at, bits, count)
                                steps = k >> UNIT
                                steps, value, length = _symbol(bits, steps, unsigned(pair), codes)
                                if length == 0:
                                    return False, (at, bits, count)
                                after = steps << UNIT
                                out[base + after] = np.int16(value)
                            bits <<= length & LAST
                            count -= length
                            k = after
                            break
                        bits <<= length & LAST
                        count -= length
                        k = after
                dc = predicted[c] + out[base + unsigned(LANES)]
                if at > limit or abs(dc) >= DC_LIMIT:
                    return False, (at, bits, count)
                predicted[c] = dc
                out[base + unsigned(LANES)] = np.int16(dc)
    return True, (at, bits, count)


@kernel
def skip(
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
    """Do what `read` does, but write no coefficients."""
    at, bits, count = reader
    for _ in range(mcus):
        for c in range(3):
            across, down, number, _ = components[c]
            pair = unsigned(number)
            start = pair << STEP
            table = pair << unsigned(SKIP_WINDOW)
            for _ in range(across * down):
                at, bits, count = _refill(data, at, bits, count)
                entry = entries[start + (bits >> UNUSED)]
                length = entry & BYTE
                k = entry >> unsigned(16) & BYTE
                difference = signed(np.int16(entry >> unsigned(32)))
                if k & unsigned(BLOCK_END):
                    k, difference, length = _symbol(bits, unsigned(0), pair, codes)
                    if length == 0:
                        return False, (at, bits, count)
                bits <<= length & LAST
                count -= length
                while k < unsigned(BLOCK_END):
                    at, bits, count = _refill(data, at, bits, count)
                    for _ in range(SKIPS):
                        entry = unsigned(skips[table + (bits >> SKIP_UNUSED)])
                        length = entry & LAST
                        after = k + (entry >> SIX)
                        if after >= unsigned(BLOCK_END):
                            if after & unsigned(BLOCK_END):
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
