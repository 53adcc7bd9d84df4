# SPDX-License-Identifier: GPL-2.0-only
"""Which segment an SA, or a packet without one, is of: a model of what HA nodes agree on.

The functions are those of linux/jhash.h; the segment is what strongSwan's ha
plugin works out on its own, from 1 to the number of segments.
"""

from __future__ import annotations

import ipaddress
import struct
from itertools import count, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ALL_ONES = 0xFFFFFFFF
_INITIAL = 0xDEADBEEF


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> 32 - bits) & _ALL_ONES


def _final(a: int, b: int, c: int) -> int:
    """Return what __jhash_final() leaves in c."""
    c = (c ^ b) - _rotated(b, 14) & _ALL_ONES
    a = (a ^ c) - _rotated(c, 11) & _ALL_ONES
    b = (b ^ a) - _rotated(a, 25) & _ALL_ONES
    c = (c ^ b) - _rotated(b, 16) & _ALL_ONES
    a = (a ^ c) - _rotated(c, 4) & _ALL_ONES
    b = (b ^ a) - _rotated(a, 14) & _ALL_ONES
    return (c ^ b) - _rotated(b, 24) & _ALL_ONES


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    """Return what __jhash_mix() makes of three words."""
    for first, second in ((4, 6), (8, 16), (19, 4)):
        # The macro goes through (a, b, c), (b, c, a), (c, a, b), (a, ...): two steps a round.
        a, c = (a - c & _ALL_ONES) ^ _rotated(c, first), c + b & _ALL_ONES
        b, a = (b - a & _ALL_ONES) ^ _rotated(a, second), a + c & _ALL_ONES
        a, b, c = c, a, b
    return a, b, c


def _of_words(a: int, b: int, c: int, initial: int) -> int:
    return _final(*(word + initial & _ALL_ONES for word in (a, b, c)))


def jhash_1word(word: int, seed: int = 0) -> int:
    """Hash one word."""
    return _of_words(word, 0, 0, seed + _INITIAL + 4)


def jhash_2words(first: int, second: int, seed: int = 0) -> int:
    """Hash two words."""
    return _of_words(first, second, 0, seed + _INITIAL + 8)


def jhash2(words: Sequence[int], seed: int = 0) -> int:
    """Hash any number of words."""
    a = b = c = _INITIAL + 4 * len(words) + seed & _ALL_ONES
    left = list(words)
    while len(left) > 3:
        a, b, c = _mixed(a + left[0] & _ALL_ONES, b + left[1] & _ALL_ONES, c + left[2] & _ALL_ONES)
        del left[:3]
    if not left:
        return c
    a, b, c = (
        word + more & _ALL_ONES for word, more in zip((a, b, c), (*left, 0, 0)[:3], strict=True)
    )
    return _final(a, b, c)


def segment_of(hashed: int, total: int) -> int:
    """Return the segment, from 1 on, that a hash falls into: reciprocal_scale() and one."""
    return (hashed * total >> 32) + 1


def sa_segment(destination: str, spi: int, total: int, seed: int = 0) -> int:
    """Return the segment of an SA by its destination and SPI, IPv4 or IPv6."""
    address = ipaddress.ip_address(destination)
    if address.version == 4:
        return segment_of(jhash_2words(int(address), spi, seed), total)
    return segment_of(jhash2((*struct.unpack("!4I", address.packed), spi), seed), total)


def source_segment(source: str, total: int, seed: int = 0) -> int:
    """Return the segment of a packet that has no SA by its source address."""
    address = ipaddress.ip_address(source)
    if address.version == 4:
        return segment_of(jhash_1word(int(address), seed), total)
    return segment_of(jhash2(struct.unpack("!4I", address.packed), seed), total)


def spis(destination: str, segment: int, total: int, *, lowest: int = 0x1000) -> Iterator[int]:
    """Give the SPIs, upwards from the lowest, whose SAs to a destination are of a segment."""
    return (spi for spi in count(lowest) if sa_segment(destination, spi, total) == segment)


def spi_in(destination: str, segment: int, total: int, *, number: int = 0) -> int:
    """Return the first such SPI, or a later one by its number."""
    return next(islice(spis(destination, segment, total), number, None))
