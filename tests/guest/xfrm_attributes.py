# SPDX-License-Identifier: GPL-2.0-only
"""The XFRM attributes these tests give an SA, as (name, bytes)."""

from __future__ import annotations

import struct


def aead(key: bytes, name: str = "rfc4106(gcm(aes))", icv_bits: int = 128) -> tuple[str, bytes]:
    """Return XFRMA_ALG_AEAD; the key of rfc4106 ends in its four bytes of salt."""
    return "XFRMA_ALG_AEAD", struct.pack("=64sII", name.encode(), len(key) * 8, icv_bits) + key


def encryption(name: str, key: bytes) -> tuple[str, bytes]:
    """Return XFRMA_ALG_CRYPT."""
    return "XFRMA_ALG_CRYPT", struct.pack("=64sI", name.encode(), len(key) * 8) + key


def authentication(name: str, key: bytes, icv_bits: int) -> tuple[str, bytes]:
    """Return XFRMA_ALG_AUTH_TRUNC."""
    head = struct.pack("=64sII", name.encode(), len(key) * 8, icv_bits)
    return "XFRMA_ALG_AUTH_TRUNC", head + key


def compression(name: str) -> tuple[str, bytes]:
    """Return XFRMA_ALG_COMP."""
    return "XFRMA_ALG_COMP", struct.pack("=64sI", name.encode(), 0)


def set_mark(value: int, mask: int | None = None) -> tuple[tuple[str, bytes], ...]:
    """Return XFRMA_SET_MARK, and XFRMA_SET_MARK_MASK unless it is to be left out."""
    mark = ("XFRMA_SET_MARK", struct.pack("=I", value))
    return (mark,) if mask is None else (mark, ("XFRMA_SET_MARK_MASK", struct.pack("=I", mask)))
