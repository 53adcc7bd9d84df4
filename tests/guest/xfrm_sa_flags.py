# SPDX-License-Identifier: GPL-2.0-only
"""Set XFRMA_SA_EXTRA_FLAGS on SAs that somebody else installed, all else kept.

    python3 xfrm_sa_flags.py --destination ADDRESS [--reqid N] [--follow] FLAGS

An IKE daemon that has no word for a flag installs the SA, and this adds the
flag through XFRM_MSG_UPDSA: what a dump says of the SA goes back to the kernel
with the flags added. Only transport mode SAs to the destination are touched;
for SAs that come in, it is an own address. With --follow it goes on, and looks
after SAs made later (rekeying), until it is ended. It hears of an SA once that
is installed: what arrives before the flag is there is not checked.

It needs a kernel with the extension transport-policy: others accept the update
and do not look at the flags, which is found out and said.
"""

from __future__ import annotations

import argparse
import errno
import os
import struct
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import xfrm_messages as xm
import xfrm_structures as xs
from netlink_frames import NLM_F_ACK, NLM_F_REQUEST, NetlinkRefusedError
from xfrm_netlink import XfrmSocket, sa_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_EXTRA_FLAGS = 24
_OFFLOAD_DEV = 28
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_BODY = _HEADER.size + xs.Sa.LAYOUT.size
_FOR_EVER = 86400.0


class NotTakenError(Exception):
    """The kernel has not set the flags it was asked to set."""


@dataclass
class Setter:
    """Adds flags to the SAs of one destination, and of one reqid unless that is 0.

    It works in the network namespace it is made in.
    """

    destination: str
    flags: int
    reqid: int = 0
    _xfrm: XfrmSocket = field(default_factory=XfrmSocket, init=False)
    _news: XfrmSocket = field(init=False)

    def __post_init__(self) -> None:
        """Hear of new SAs from now on, so that none slips by between the dump and the first."""
        self._news = XfrmSocket(groups=(xm.GROUP_SA,))

    def close(self) -> None:
        """Close its sockets."""
        self._xfrm.close()
        self._news.close()

    def installed(self) -> Iterator[xs.Sa]:
        """Treat the SAs there are; give each that got the flags."""
        for frame in self._xfrm.dump("GETSA", xm.DumpMessage(), xm.MSG_GETSA):
            yield from self._treat(frame)

    def announced(self, seconds: float = _FOR_EVER) -> Iterator[xs.Sa]:
        """Treat the SAs that are announced within some seconds; give each that got the flags."""
        for kind, frame in self._news.heard(seconds):
            if kind in {xm.MSG_NEWSA, xm.MSG_UPDSA}:
                yield from self._treat(frame)

    def _treat(self, frame: bytes) -> Iterator[xs.Sa]:
        sa = sa_of(frame)
        wanted = sa.destination == self.destination and self.reqid in {0, sa.reqid}
        if not wanted or sa.mode != xs.MODE_TRANSPORT or sa.is_larval:
            return
        present = _extra_flags(sa)
        if present & self.flags == self.flags or not self._update(frame, present | self.flags):
            return
        found = self._xfrm.find(sa)
        if found is not None and _extra_flags(found) & self.flags != self.flags:
            raise NotTakenError(
                f"UPDSA was accepted, but the SA of SPI {sa.spi:#x} has not got the flags:"
                " the kernel lacks the extension transport-policy"
            )
        yield sa

    def _update(self, frame: bytes, flags: int) -> bool:
        """Send an SA's frame back with other flags; tell whether the SA was still there."""
        attributes = _without(frame[_BODY:], {_EXTRA_FLAGS, _OFFLOAD_DEV})
        attributes += struct.pack("=HHI", 8, _EXTRA_FLAGS, flags)
        body = frame[_HEADER.size : _BODY] + attributes
        length = _HEADER.size + len(body)
        header = _HEADER.pack(length, xm.MSG_UPDSA, NLM_F_REQUEST | NLM_F_ACK, _SEQUENCE, 0)
        os.write(self._xfrm.fileno(), header + body)
        try:
            self._xfrm.replies("UPDSA", _SEQUENCE)
        except NetlinkRefusedError as refusal:
            if refusal.errno != errno.ESRCH:
                raise
            return False
        return True


#: Requests are asked one by one, and numbers that XfrmSocket counts are small.
_SEQUENCE = 0x5A5A5A5A


def _extra_flags(sa: xs.Sa) -> int:
    return int.from_bytes(sa.attribute("XFRMA_SA_EXTRA_FLAGS") or b"", sys.byteorder)


def _without(attributes: bytes, kinds: set[int]) -> bytes:
    """Return attributes as they are, but for some kinds.

    An update that names the offload device would offload the SA a second time.
    """
    kept = b""
    while attributes:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        padded = (length + 3) & ~3
        if kind not in kinds:
            kept += attributes[:padded].ljust(padded, b"\0")
        attributes = attributes[padded:]
    return kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the words of the command line and do what they say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--destination", required=True, help="the SAs' destination address")
    parser.add_argument("--reqid", type=int, default=0, help="only the SAs of this reqid")
    parser.add_argument("--follow", action="store_true", help="go on with SAs made later")
    parser.add_argument("flags", type=lambda text: int(text, 0), help="such as 0x1000000")
    words = parser.parse_args(arguments)
    setter = Setter(words.destination, words.flags, words.reqid)
    try:
        for sa in setter.installed():
            _say(sa, words.flags)
        while words.follow:
            for sa in setter.announced():
                _say(sa, words.flags)
    except (NetlinkRefusedError, NotTakenError) as error:
        sys.stderr.write(f"xfrm_sa_flags: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        setter.close()
    return 0


def _say(sa: xs.Sa, flags: int) -> None:
    sys.stdout.write(f"{sa.source} > {sa.destination} spi {sa.spi:#010x}: +{flags:#x}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
