# SPDX-License-Identifier: GPL-2.0-only
"""E6 on ways in of other kinds: ESP in UDP, and GRO of packets that have a mark already."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

import esp_in_udp as eu
import xfrm_attributes as xa
import xfrm_structures as xs
from encap_receiver import Sealer, receiver
from esp_oracle import EspOracle
from marked_wire import marked_wire
from netfilter import seen, watch
from wire import Wire
from xfrm_netlink import XfrmSocket

if TYPE_CHECKING:
    from namespaces import Namespace

KEY = bytes(range(20))
PORT = 4242
PRIOR = 0xAB00
MARK = xa.set_mark(0x10, 0xFF)


def words(marks: tuple[int, ...]) -> str:
    """Return marks as a message shows them."""
    return ", ".join(f"{mark:#x}" for mark in marks) or "nothing"


@pytest.mark.proof(red=r"what came as ESP in UDP carries the mark 0x0, expected 0x10$")
@pytest.mark.parametrize("way", ["slow", "gro"])
@pytest.mark.parametrize("mode", [xs.MODE_TRANSPORT, xs.MODE_TUNNEL], ids=["transport", "tunnel"])
def test_esp_in_udp_is_marked(netns: Namespace, way: str, mode: int) -> None:
    gro = way == "gro"
    with eu.gateway(netns, gro=gro) as gateway:
        watch(netns, port=eu.INNER_PORT)
        sealer = Sealer(gateway.input(*MARK, mode=mode))
        with receiver(gateway, zero_checksums=False, gro=gro) as opened:
            sealed = [eu.in_udp(sealer.seal(data), checksum=None) for data in (b"one", b"two")]
            taken = opened.takes(*sealed)
    assert taken == [b"one", b"two"], f"of two packets in UDP came {taken}"
    marks = seen(netns).marks
    assert marks == (0x10,), (
        f"what came as ESP in UDP carries the mark {words(marks)}, expected 0x10"
    )


@pytest.mark.proof(red=r"the mark 0xab00 from before GRO became 0xab00, expected 0xab10$")
@pytest.mark.parametrize("family", [xs.AF_INET, xs.AF_INET6], ids=["ipv4", "ipv6"])
def test_the_mask_spares_a_mark_from_before_gro(netns: Namespace, family: int) -> None:
    ends = (Wire.FAR4, Wire.NEAR4) if family == xs.AF_INET else (Wire.FAR6, Wire.NEAR6)
    sa = xs.Sa(*ends, spi=0x1234, attributes=(xa.aead(KEY), *MARK))
    oracle = EspOracle(sa, KEY)
    watch(netns, port=PORT)
    with (
        marked_wire(netns, PRIOR) as wire,
        netns.socket(family, socket.SOCK_DGRAM) as inner,
    ):
        with netns.inside(), contextlib.closing(XfrmSocket()) as xfrm:
            xfrm.add(sa)
        inner.bind(("", PORT))
        wire.send(oracle.seal(b"marked?", port=PORT))
        data = inner.recv(100)
    found = seen(netns)
    assert data == b"marked?", f"{data!r} came through the SA, expected b'marked?'"
    assert found.marks == (0xAB10,), (
        f"the mark {PRIOR:#x} from before GRO became {words(found.marks)}, expected 0xab10"
    )
    outer = 0 if wire.gro else 1
    assert found.outer == outer, (
        f"prerouting saw {found.outer} ESP packets, expected {outer}: GRO was not what decrypted"
    )
