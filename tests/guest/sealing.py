# SPDX-License-Identifier: GPL-2.0-only
"""ESP and AH packets byte by byte: any sequence number, in any order, forged if need be.

What esp_oracle makes by scapy in milliseconds takes microseconds here; the
cipher is cryptography's, the MAC Python's own.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import struct
from dataclasses import dataclass, replace
from typing import Any

import xfrm_attributes as xa
import xfrm_structures as xs

#: rfc4106: 16 bytes of key, 4 of salt.
KEY = bytes(range(20))
AH_KEY = bytes(range(32))
ENCAP_PORT = 4500

_AH_ICV = 12
_AH_WORDS = 4
_ESP_IV = 8
_ICV = 16
_UDP = struct.Struct("!4H")
_NEXT_HEADER_OF = {4: socket.IPPROTO_IPIP, 6: socket.IPPROTO_IPV6}


def ip_packet(source: str, destination: str, proto: int, payload: bytes) -> bytes:
    """Return an IPv4 or IPv6 packet."""
    if ":" in destination:
        head = struct.pack("!IHBB", 6 << 28, len(payload), proto, 64)
        return head + _addresses(source, destination) + payload
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(payload), 0, 0, 64, proto)
    ends = _addresses(source, destination)
    return head + _checksum(head + ends) + ends + payload


def udp_datagram(source: str, destination: str, ports: tuple[int, int], data: bytes) -> bytes:
    """Return a UDP datagram, with the checksum only that IPv6 wants."""
    length = _UDP.size + len(data)
    bare = _UDP.pack(*ports, length, 0) + data
    if ":" not in destination:
        return bare
    pseudo = _addresses(source, destination) + struct.pack("!II", length, socket.IPPROTO_UDP)
    return bare[:6] + _checksum(pseudo + bare) + bare[8:]


def tcp_syn(source: str, destination: str, ports: tuple[int, int]) -> bytes:
    """Return the TCP header that asks for a connection over IPv4."""
    bare = struct.pack("!HHIIHHHH", *ports, 1, 0, 5 << 12 | 2, 1000, 0, 0)
    pseudo = _addresses(source, destination) + struct.pack("!HH", socket.IPPROTO_TCP, len(bare))
    return bare[:16] + _checksum(pseudo + bare) + bare[18:]


def large_tcp_packet(source: str, destination: str, data: bytes) -> bytes:
    """Return a packet of TCP whose checksum, of the addresses only, a device is to finish."""
    ends = _addresses(source, destination)
    pseudo = ends + struct.pack("!HH", socket.IPPROTO_TCP, 20 + len(data))
    begun = bytes(byte ^ 0xFF for byte in _checksum(pseudo))
    head = struct.pack("!HHIIHH", 40000, 80, 1, 1, 5 << 12 | 0x10, 1000)
    return ip_packet(source, destination, socket.IPPROTO_TCP, head + begun + bytes(2) + data)


def udp_packet(source: str, destination: str, port: int, data: bytes) -> bytes:
    """Return a packet with a datagram from a port to the same."""
    datagram = udp_datagram(source, destination, (port, port), data)
    return ip_packet(source, destination, socket.IPPROTO_UDP, datagram)


def _addresses(source: str, destination: str) -> bytes:
    return ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF or 0xFFFF).to_bytes(2, "big")


@dataclass(frozen=True)
class Sealer:
    """The far end of an SA: seals what goes through it and opens what came.

    A sequence number has 64 bits; without ESN its upper half is nowhere.
    ``inner`` is source and destination inside a tunnel.
    """

    sa: xs.Sa
    inner: tuple[str, str] | None = None

    @property
    def ends(self) -> tuple[str, str]:
        """Source and destination of what is inside."""
        return self.inner or (self.sa.source, self.sa.destination)

    def datagram(
        self, sequence: int, port: int, data: bytes = b"", *, forged: bool = False
    ) -> bytes:
        """Return an IP packet with a UDP datagram in ESP or AH; its data is the number."""
        inside = udp_datagram(*self.ends, (port, port), data or str(sequence).encode())
        return self.seal(sequence, socket.IPPROTO_UDP, inside, forged=forged)

    def seal(self, sequence: int, proto: int, inside: bytes, *, forged: bool = False) -> bytes:
        """Return an IP packet with what is of some protocol in ESP or AH."""
        if self.sa.mode == xs.MODE_TUNNEL:
            inside = ip_packet(*self.ends, proto, inside)
            proto = _NEXT_HEADER_OF[inside[0] >> 4]
        seal = self._ah if self._is_ah else self._esp
        sealed = seal(sequence, proto, inside)
        return _with_last_bit_turned(sealed, self._icv_end(sealed)) if forged else sealed

    @property
    def _is_ah(self) -> bool:
        return self.sa.proto == xs.PROTO_AH

    @property
    def _esn(self) -> bool:
        return bool(self.sa.flags & xs.STATE_ESN)

    def _icv_end(self, sealed: bytes) -> int:
        head = 40 if sealed[0] >> 4 == 6 else 20
        return head + 12 + _AH_ICV if self._is_ah else len(sealed)

    def _esp(self, sequence: int, number: int, inside: bytes) -> bytes:
        pad = -(len(inside) + 2) % 4
        plain = inside + bytes(range(1, pad + 1)) + bytes((pad, number))
        iv = sequence.to_bytes(_ESP_IV, "big")
        head, aad = self._esp_head(sequence)
        esp = head + iv + _gcm().encrypt(KEY[16:] + iv, plain, aad)
        ends = (self.sa.source, self.sa.destination)
        if self.sa.attribute("XFRMA_ENCAP") is None:
            return ip_packet(*ends, socket.IPPROTO_ESP, esp)
        return in_udp(ip_packet(*ends, socket.IPPROTO_ESP, esp))

    def _esp_head(self, sequence: int) -> tuple[bytes, bytes]:
        """Return what is before the IV, and what is authenticated besides the payload."""
        spi = self.sa.spi.to_bytes(4, "big")
        low = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
        return spi + low, spi + (sequence.to_bytes(8, "big") if self._esn else low)

    def _ah(self, sequence: int, number: int, inside: bytes) -> bytes:
        def packet(icv: bytes) -> bytes:
            head = struct.pack("!BBHII", number, _AH_WORDS, 0, self.sa.spi, sequence & 0xFFFFFFFF)
            ends = (self.sa.source, self.sa.destination)
            return ip_packet(*ends, socket.IPPROTO_AH, head + icv + inside)

        covered = bytearray(packet(bytes(_AH_ICV)))
        # What routers change counts as 0.
        if covered[0] >> 4 == 6:
            # Traffic class and flow label are 0 already; the hop limit.
            covered[7] = 0
        else:
            # Type of service, fragment, time to live, checksum.
            covered[1] = covered[8] = 0
            covered[6:8] = covered[10:12] = bytes(2)
        high = (sequence >> 32).to_bytes(4, "big") if self._esn else b""
        return packet(hmac.digest(AH_KEY, bytes(covered) + high, "sha256")[:_AH_ICV])

    def open(self, packet: bytes, *, high: int = 0) -> bytes:
        """Return what is inside an ESP packet; raises InvalidTag when it is not authentic."""
        esp = esp_of(packet)
        _, aad = self._esp_head(high << 32 | sequence_of(packet))
        plain: bytes = _gcm().decrypt(KEY[16:] + esp[8:16], esp[16:], aad)
        return plain[: -2 - plain[-2]]


def _gcm() -> Any:
    # Some 0.3 s under TCG, so only who seals or opens pays for it.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(KEY[:16])


def _with_last_bit_turned(packet: bytes, end: int) -> bytes:
    return packet[: end - 1] + bytes([packet[end - 1] ^ 1]) + packet[end:]


def in_udp(packet: bytes, ports: tuple[int, int] = (ENCAP_PORT, ENCAP_PORT)) -> bytes:
    """Return an IPv4 packet with its payload put into UDP, without a checksum."""
    ends = (socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20]))
    payload = packet[20:]
    udp = _UDP.pack(*ports, _UDP.size + len(payload), 0) + payload
    return ip_packet(*ends, socket.IPPROTO_UDP, udp)


def esp_of(packet: bytes) -> bytes:
    """Return the ESP of an IP packet, found in UDP too; b"" when it is none."""
    head, proto = (40, packet[6]) if packet[0] >> 4 == 6 else (20, packet[9])
    if proto == socket.IPPROTO_ESP:
        return packet[head:]
    if proto == socket.IPPROTO_UDP and struct.unpack_from("!H", packet, head + 2)[0] == ENCAP_PORT:
        inside = packet[head + _UDP.size :]
        return inside if len(inside) > 8 and inside[:4] != bytes(4) else b""
    return b""


def sequence_of(packet: bytes) -> int:
    """Return the lower half of the sequence number in an ESP packet."""
    return int(struct.unpack_from("!I", esp_of(packet), 4)[0])


def sa(
    source: str,
    destination: str,
    spi: int,
    *attributes: tuple[str, bytes],
    mode: int = xs.MODE_TRANSPORT,
    window: int = 32,
) -> xs.Sa:
    """Return an SA for ESP that Sealer has the key of, with further attributes."""
    own = xa.aead(KEY)
    return xs.Sa(
        source, destination, spi, mode=mode, replay_window=window, attributes=(own, *attributes)
    )


def ah_sa(source: str, destination: str, spi: int, *, mode: int = xs.MODE_TRANSPORT) -> xs.Sa:
    """Return an SA for AH that Sealer has the key of."""
    auth = xa.authentication("hmac(sha256)", AH_KEY, _AH_ICV * 8)
    return xs.Sa(source, destination, spi, xs.PROTO_AH, mode, attributes=(auth,))


def with_esn(made: xs.Sa, *, sequence: int = 0, out_sequence: int = 0, window: int = 32) -> xs.Sa:
    """Return an SA with 64 bits of sequence number, counted up to somewhere."""
    state = xa.esn(window=window, sequence=sequence, out_sequence=out_sequence)
    attributes = (*made.attributes, state)
    return replace(made, flags=made.flags | xs.STATE_ESN, replay_window=0, attributes=attributes)
