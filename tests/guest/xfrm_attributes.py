# SPDX-License-Identifier: GPL-2.0-only
"""The XFRM attributes these tests give an SA, as (name, bytes)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

ENCAP_NON_IKE = 1
ENCAP_UDP = 2
ENCAP_TCP = 7


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


def encap(source_port: int, destination_port: int, kind: int = ENCAP_UDP) -> tuple[str, bytes]:
    """Return XFRMA_ENCAP (struct xfrm_encap_tmpl) without an original address."""
    return "XFRMA_ENCAP", struct.pack("=H", kind) + struct.pack(
        "!HH2x16s", source_port, destination_port, bytes(16)
    )


def extra_flags(flags: int) -> tuple[str, bytes]:
    """Return XFRMA_SA_EXTRA_FLAGS."""
    return "XFRMA_SA_EXTRA_FLAGS", struct.pack("=I", flags)


def sa_direction(direction: int) -> tuple[str, bytes]:
    """Return XFRMA_SA_DIR; kernels before 6.10 pass over it."""
    return "XFRMA_SA_DIR", bytes([direction + 1])


def offload(device_index: int, flags: int = 0) -> tuple[str, bytes]:
    """Return XFRMA_OFFLOAD_DEV (struct xfrm_user_offload)."""
    return "XFRMA_OFFLOAD_DEV", struct.pack("=iB3x", device_index, flags)


def esn(*, window: int, sequence: int = 0, out_sequence: int = 0) -> tuple[str, bytes]:
    """Return XFRMA_REPLAY_ESN_VAL (struct xfrm_replay_state_esn), all before ``sequence`` seen.

    A number has 64 bits; the flag XFRM_STATE_ESN of the SA says that its upper half counts.
    """
    words = (window + 31) // 32
    low, high = (
        [number & 0xFFFFFFFF for number in (out_sequence, sequence)],
        [number >> 32 for number in (out_sequence, sequence)],
    )
    head = _ESN.pack(words, *low, *high, window)
    return "XFRMA_REPLAY_ESN_VAL", head + b"\xff" * 4 * words


_ESN = struct.Struct("=6I")
_REPLAY = struct.Struct("=3I")


def replay(*, sequence: int = 0, out_sequence: int = 0, bitmap: int = 0) -> tuple[str, bytes]:
    """Return XFRMA_REPLAY_VAL (struct xfrm_replay_state)."""
    return "XFRMA_REPLAY_VAL", _REPLAY.pack(out_sequence, sequence, bitmap)


@dataclass(frozen=True)
class Replay:
    """Where an SA's counting is: the last number sent, and the highest received."""

    sent: int
    received: int

    @classmethod
    def of(cls, attributes: dict[str, bytes]) -> Replay:
        """Read it from the attributes of a dumped SA, 64 bits where the SA has them."""
        raw = attributes.get("XFRMA_REPLAY_ESN_VAL")
        if raw is None:
            return cls(*_REPLAY.unpack(attributes["XFRMA_REPLAY_VAL"])[:2])
        _, sent, received, sent_high, received_high, _ = _ESN.unpack_from(raw)
        return cls(sent_high << 32 | sent, received_high << 32 | received)
