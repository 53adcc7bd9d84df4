# SPDX-License-Identifier: GPL-2.0-only
"""Make the AEAD of new SAs asynchronous, as an accelerator's is, by cryptd or pcrypt."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from namespaces import SetUpError, wait_until
from netlink_frames import Message, NetlinkRefusedError, NetlinkSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

_NETLINK_CRYPTO = 21
_MSG_DELALG = 0x11
#: The longest a test's SAs may take to let go of their algorithm.
_PATIENCE = 10


class _AlgorithmMessage(Message):  # type: ignore[misc]
    """struct crypto_user_alg."""

    fields = (
        ("name", "64s"),
        ("driver", "64s"),
        ("module", "64s"),
        ("type", "I"),
        ("mask", "I"),
        ("references", "I"),
        ("flags", "I"),
    )


@contextlib.contextmanager
def asynchronous(wrapper: str, algorithm: str = "rfc4106(gcm(aes))") -> Iterator[str]:
    """Wrap an AEAD in ``cryptd`` or ``pcrypt``; give the name of that driver.

    It comes with a higher priority than what it wraps, so new SAs get it. They
    have to be flushed inside; afterwards all is as before.
    """
    _make(algorithm)
    drivers = [entry for entry in _algorithms() if entry["name"] == algorithm]
    best = max(drivers, key=lambda entry: int(entry["priority"]))
    # By the driver's name: asked for by another one it is made again and again.
    driver = f"{wrapper}({best['driver']})"
    _make(driver)
    try:
        yield driver
    finally:
        # What was made of it, such as seqiv(...), goes too.
        if not wait_until(lambda: _deleted(driver), seconds=_PATIENCE):
            raise SetUpError(f"{driver} is still in use: an SA was not freed")


def _make(name: str) -> None:
    """Let the kernel put an algorithm together from its templates."""
    with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as asking:
        asking.bind(("aead", name))


def references(driver: str) -> int:
    """Return how many hold an algorithm, by its driver's name."""
    return next(int(entry["refcnt"]) for entry in _algorithms() if entry["driver"] == driver)


def _algorithms() -> list[dict[str, str]]:
    blocks = Path("/proc/crypto").read_text(encoding="ascii").strip().split("\n\n")
    lines = [[line.split(":", 1) for line in block.splitlines()] for block in blocks]
    return [{key.strip(): value.strip() for key, value in block} for block in lines]


def _deleted(driver: str) -> bool:
    message = _AlgorithmMessage()
    message["driver"] = driver.encode()
    with contextlib.closing(NetlinkSocket(_NETLINK_CRYPTO)) as crypto:
        try:
            crypto.ask("DELALG", message, _MSG_DELALG)
        except NetlinkRefusedError:
            return False
    return True
