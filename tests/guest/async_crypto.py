# SPDX-License-Identifier: GPL-2.0-only
"""A cipher that answers later: an instance of cryptd, which SAs made meanwhile run through.

XFRM knows algorithms by their generic name only, and the kernel takes the
instance of the highest priority for it; cryptd registers its own above the
one it wraps. pcrypt would too, but lockdep takes two padata queues for one
("possible recursive locking" in padata_do_serial(), seen on 6.12.107) and says
nothing more from then on.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import TYPE_CHECKING

from namespaces import SetUpError, wait_until
from netlink_frames import Message, NetlinkRefusedError, NetlinkSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What "rfc4106(gcm(aes))" of an SA is made of.
_CIPHER = "rfc4106(gcm(aes))"

_NETLINK_CRYPTO = 21
_MSG_NEWALG = 0x10
_MSG_DELALG = 0x11
_TYPE_AEAD = 3
_TYPE_MASK = 0xF


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


def algorithms() -> list[dict[str, str]]:
    """Read /proc/crypto: what is registered, each as its fields."""
    text = Path("/proc/crypto").read_text(encoding="ascii")
    return [_fields(block) for block in text.strip().split("\n\n")]


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def in_use(driver: str) -> bool:
    """Tell whether anything, such as an SA, holds an instance."""
    return any(found["driver"] == driver and int(found["refcnt"]) > 1 for found in algorithms())


@contextlib.contextmanager
def asynchronous() -> Iterator[str]:
    """Let "rfc4106(gcm(aes))" be asynchronous by cryptd; give the driver's name.

    The instance is taken away in the end. That needs every SA that uses it to
    be freed, so SetUpError then means a leak.
    """
    with contextlib.closing(NetlinkSocket(_NETLINK_CRYPTO)) as crypto:
        _ask(crypto, _MSG_NEWALG, _CIPHER)
        wrapped = max(
            (found for found in algorithms() if found["name"] == _CIPHER),
            key=lambda found: int(found["priority"]),
        )
        driver = f"cryptd({wrapped['driver']})"
        _ask(crypto, _MSG_NEWALG, driver)
        try:
            yield driver
        finally:
            removed = wait_until(lambda: _removed(crypto, driver), seconds=10)
        if not removed:
            raise SetUpError(f"{driver} is still in use: its SAs were not freed within 10 s")


def _ask(crypto: NetlinkSocket, kind: int, driver: str) -> None:
    message = _AlgorithmMessage()
    message.update(
        name=b"", driver=driver.encode(), module=b"",
        type=_TYPE_AEAD, mask=_TYPE_MASK, references=0, flags=0,
    )  # fmt: skip
    crypto.ask(f"crypto request {kind:#x} for {driver}", message, kind)


def _removed(crypto: NetlinkSocket, driver: str) -> bool:
    try:
        _ask(crypto, _MSG_DELALG, driver)
    except NetlinkRefusedError as refusal:
        if refusal.errno != errno.EBUSY:
            raise
        return False
    return True
