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
    """Wrap an AEAD in ``cryptd`` or ``pcrypt`` and give the name of the driver XFRM picks then.

    Its SAs have to be flushed inside; afterwards it is as before.
    """
    with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as made:
        # Asking for a name by its templates makes it, with a priority above what it wraps.
        made.bind(("aead", f"seqiv({wrapper}({algorithm}))"))
    drivers = [entry for entry in _algorithms() if entry["name"] == f"seqiv({algorithm})"]
    picked = max(drivers, key=lambda entry: int(entry["priority"]))
    driver = picked["driver"]
    if not driver.startswith(f"seqiv({wrapper}(") or picked["async"] != "yes":
        raise SetUpError(f"XFRM would pick {driver}, async: {picked['async']}; wanted {wrapper}")
    try:
        yield driver
    finally:
        # With what is inside seqiv, seqiv goes too. Its own name can be too long to say.
        inside = driver.removeprefix("seqiv(").removesuffix(")")
        if not wait_until(lambda: _deleted(inside), seconds=_PATIENCE):
            raise SetUpError(f"{inside} is still in use: an SA was not freed")


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
