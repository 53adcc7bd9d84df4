# SPDX-License-Identifier: GPL-2.0-only
"""ESP by scapy and cryptography: it shares no code with the kernel it judges.

Importing scapy takes 1.3 s under TCG, so it waits until a packet is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import xfrm_structures as xs


@dataclass
class EspOracle:
    """Seals and opens what one SA (rfc4106, 16 bytes of ICV) carries.

    ``key`` ends in the four bytes of salt, as XFRM takes it.
    """

    sa: xs.Sa
    key: bytes
    _peer: Any = field(default=None, init=False)

    def seal(self, payload: bytes, *, inner: tuple[str, str] | None = None, port: int) -> bytes:
        """Return an IP packet with ESP around a UDP datagram, its sequence number counted on.

        ``inner`` is source and destination of the inner packet in tunnel mode.
        """
        from scapy.layers.inet import UDP

        packet = _ip(*(inner or (self.sa.source, self.sa.destination)))
        sealed = self._association().encrypt(packet / UDP(sport=port, dport=port) / payload)
        return bytes(sealed)

    def open(self, packet: bytes) -> bytes:
        """Return the inner IP packet of an ESP packet; raises when it is not authentic."""
        from scapy.layers.inet import IP
        from scapy.layers.inet6 import IPv6

        # First of all, for it teaches scapy what the next header 50 is.
        association = self._association()
        outer = (IPv6 if packet[0] >> 4 == 6 else IP)(packet)
        return bytes(association.decrypt(outer))

    def _association(self) -> Any:
        if self._peer is None:
            from scapy.layers.ipsec import ESP, SecurityAssociation

            tunnel = None
            if self.sa.mode == xs.MODE_TUNNEL:
                tunnel = _ip(self.sa.source, self.sa.destination)
            self._peer = SecurityAssociation(
                ESP,
                spi=self.sa.spi,
                crypt_algo="AES-GCM",
                crypt_key=self.key,
                tunnel_header=tunnel,
            )
        return self._peer


def plain(source: str, destination: str, payload: bytes, *, port: int) -> bytes:
    """Return an IP packet with a UDP datagram, as it is."""
    from scapy.layers.inet import UDP

    return bytes(_ip(source, destination) / UDP(sport=port, dport=port) / payload)


def _ip(source: str, destination: str) -> Any:
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6

    if xs.family_of(destination) == xs.AF_INET6:
        return IPv6(src=source, dst=destination)
    return IP(src=source, dst=destination)
