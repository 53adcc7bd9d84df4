# SPDX-License-Identifier: GPL-2.0-only
"""E6: XFRMA_SET_MARK on an input SA marks what it decrypted, on both ways in.

The ESP comes from scapy through a TUN device: with NAPI it is decrypted in
GRO, before any netfilter hook, without NAPI on the slow path.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

import xfrm_attributes as xa
import xfrm_structures as xs
from async_crypto import asynchronous, in_use
from callers import without_net_admin, write_as_32_bits
from esp_oracle import EspOracle
from namespaces import goes_away
from netfilter import seen, watch
from netlink_frames import NetlinkRefusedError
from wire import Wire, is_esp, wire
from xfrm_netlink import XfrmSocket, sa_request_of_32_bits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from namespaces import Namespace

KEY = bytes(range(20))
PORT = 4242
PACKETS = 3
BOTH_WAYS = pytest.mark.parametrize("way", ["slow", "gro"])
FAMILIES = pytest.mark.parametrize("family", [xs.AF_INET, xs.AF_INET6], ids=["ipv4", "ipv6"])
MODES = pytest.mark.parametrize(
    "mode", [xs.MODE_TRANSPORT, xs.MODE_TUNNEL], ids=["transport", "tunnel"]
)


@dataclass(frozen=True)
class Gateway:
    """A namespace that takes ESP from the wire."""

    namespace: Namespace
    xfrm: XfrmSocket
    wire: Wire

    def sa(self, family: int, mode: int, *attributes: tuple[str, bytes]) -> xs.Sa:
        """Install an input SA with further attributes and return it."""
        ends = (Wire.FAR4, Wire.NEAR4) if family == xs.AF_INET else (Wire.FAR6, Wire.NEAR6)
        made = xs.Sa(*ends, spi=0x1234, mode=mode, attributes=(xa.aead(KEY), *attributes))
        self.xfrm.add(made)
        if mode == xs.MODE_TUNNEL:
            # Without a policy that asks for it, what a tunnel carried is dropped.
            template = xs.Template(*ends, mode=mode)
            everything = xs.Selector.everything(family)
            self.xfrm.add_policy(xs.Policy(everything, xs.DIR_IN, template))
        return made

    def inject(self, sa: xs.Sa, inner: tuple[str, str] | None = None) -> int:
        """Send three sealed datagrams in and return how many a socket received."""
        oracle = EspOracle(sa, KEY)
        with self.namespace.socket(sa.family, socket.SOCK_DGRAM) as receiver:
            receiver.bind(("", PORT))
            if sa.mode == xs.MODE_TUNNEL and inner is None:
                inner = (sa.source, sa.destination)
            for _ in range(PACKETS):
                self.wire.send(oracle.seal(b"marked?", inner=inner, port=PORT))
            received = 0
            with contextlib.suppress(TimeoutError):
                while received < PACKETS:
                    receiver.settimeout(2)
                    receiver.recv(100)
                    received += 1
        return received


@pytest.fixture
def plug(netns: Namespace) -> Iterator[Callable[[str], Gateway]]:
    """Give a function that makes the gateway, its packets to come by the "gro" or "slow" way."""
    with contextlib.ExitStack() as undo:

        def make(way: str) -> Gateway:
            plugged = undo.enter_context(wire(netns, gro=way == "gro"))
            with netns.inside():
                xfrm = undo.enter_context(contextlib.closing(XfrmSocket()))
            return Gateway(netns, xfrm, plugged)

        yield make


def words(marks: tuple[int, ...]) -> str:
    """Return marks as a message shows them."""
    return ", ".join(f"{mark:#x}" for mark in marks) or "nothing"


@pytest.mark.proof(red=r"the decrypted packets carry the mark 0x0, expected 0x10$")
@BOTH_WAYS
@FAMILIES
@MODES
def test_what_was_decrypted_is_marked(
    plug: Callable[[str], Gateway], way: str, family: int, mode: int
) -> None:
    gateway = plug(way)
    watch(gateway.namespace, port=PORT)
    received = gateway.inject(gateway.sa(family, mode, *xa.set_mark(0x10, 0xFF)))
    found = seen(gateway.namespace)
    assert received == PACKETS, f"{received} of {PACKETS} datagrams were received"
    assert found.marks == (0x10,), (
        f"the decrypted packets carry the mark {words(found.marks)}, expected 0x10"
    )
    assert found.outer == (0 if way == "gro" else PACKETS), (
        f"prerouting saw {found.outer} ESP packets: they came in on the other way than meant"
    )


@pytest.mark.control
@BOTH_WAYS
@FAMILIES
def test_without_set_mark_nothing_is_marked(
    plug: Callable[[str], Gateway],
    way: str,
    family: int,
) -> None:
    gateway = plug(way)
    watch(gateway.namespace, port=PORT)
    received = gateway.inject(gateway.sa(family, xs.MODE_TRANSPORT))
    found = seen(gateway.namespace)
    assert received == PACKETS, f"{received} of {PACKETS} datagrams were received"
    assert found.marks == (0,), f"without SET_MARK the marks are {words(found.marks)}, expected 0x0"


@pytest.mark.proof(red=r"the mark 0xab00 became 0xab00 in decryption, expected 0xab10$")
@FAMILIES
def test_the_mask_spares_the_prior_mark(plug: Callable[[str], Gateway], family: int) -> None:
    gateway = plug("slow")
    watch(gateway.namespace, port=PORT, prior_mark=0xAB00)
    gateway.inject(gateway.sa(family, xs.MODE_TRANSPORT, *xa.set_mark(0x10, 0xFF)))
    marks = seen(gateway.namespace).marks
    assert marks == (0xAB10,), (
        f"the mark 0xab00 became {words(marks)} in decryption, expected 0xab10"
    )


@pytest.mark.proof(red=r"without a mask the mark 0xab00 became 0xab00, expected 0x10$")
def test_no_mask_replaces_the_prior_mark(plug: Callable[[str], Gateway]) -> None:
    gateway = plug("slow")
    watch(gateway.namespace, port=PORT, prior_mark=0xAB00)
    sa = gateway.sa(xs.AF_INET, xs.MODE_TRANSPORT, *xa.set_mark(0x10))
    gateway.inject(sa)
    marks = seen(gateway.namespace).marks
    assert marks == (0x10,), f"without a mask the mark 0xab00 became {words(marks)}, expected 0x10"


@pytest.mark.proof(red=r"SET_MARK without a mask is dumped with the mask None, expected ffffffff$")
def test_no_mask_is_dumped_as_all_ones(plug: Callable[[str], Gateway]) -> None:
    gateway = plug("slow")
    found = gateway.xfrm.find(gateway.sa(xs.AF_INET, xs.MODE_TRANSPORT, *xa.set_mark(0x10)))
    assert found is not None, "the SA is not in the dump"
    mask = found.attribute("XFRMA_SET_MARK_MASK")
    shown = None if mask is None else f"{struct.unpack('=I', mask)[0]:x}"
    assert shown == "ffffffff", (
        f"SET_MARK without a mask is dumped with the mask {shown}, expected ffffffff"
    )


@pytest.mark.proof(red=r"0 of 3 datagrams took the route of the mark$")
@BOTH_WAYS
@FAMILIES
def test_policy_routing_sees_the_mark(
    plug: Callable[[str], Gateway],
    way: str,
    family: int,
) -> None:
    gateway = plug(way)
    inner = ("10.77.0.2", "10.77.0.1") if family == xs.AF_INET else ("fd77::2", "fd77::1")
    prefix = "10.77.0.1/32" if family == xs.AF_INET else "fd77::1/128"
    version = "-4" if family == xs.AF_INET else "-6"
    # The inner destination is ours in table 10 only, which only the mark leads to.
    gateway.namespace.run(["ip", version, "rule", "add", "fwmark", "0x10/0xff", "table", "10"])
    gateway.namespace.ip(
        f"route add local {prefix} dev lo table 10",
        f"route add {inner[0]} dev {Wire.DEVICE}",
    )
    received = gateway.inject(
        gateway.sa(family, xs.MODE_TUNNEL, *xa.set_mark(0x10, 0xFF)), inner=inner
    )
    assert received == PACKETS, f"{received} of {PACKETS} datagrams took the route of the mark"


@pytest.mark.proof(red=r"the ESP packets left with the mark 0x0, expected 0x10$")
@FAMILIES
def test_an_output_sa_marks_what_it_encrypted(plug: Callable[[str], Gateway], family: int) -> None:
    gateway = plug("slow")
    ends = (Wire.NEAR4, Wire.FAR4) if family == xs.AF_INET else (Wire.NEAR6, Wire.FAR6)
    watch(gateway.namespace, port=PORT)
    sa = xs.Sa(*ends, spi=0x4321, attributes=(xa.aead(KEY), *xa.set_mark(0x10, 0xFF)))
    gateway.xfrm.add(sa)
    length = 32 if family == xs.AF_INET else 128
    selector = xs.Selector(f"{ends[0]}/{length}", f"{ends[1]}/{length}")
    gateway.xfrm.add_policy(xs.Policy(selector, xs.DIR_OUT, xs.Template(*ends)))
    with gateway.namespace.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"to be sealed", (ends[1], PORT))
    packet = gateway.wire.receive(is_esp)
    assert packet is not None, "no ESP packet left within 5 s"
    marks = seen(gateway.namespace).esp_marks
    assert marks == (0x10,), f"the ESP packets left with the mark {words(marks)}, expected 0x10"
    inside = EspOracle(sa, KEY).open(packet)
    assert inside.endswith(b"to be sealed"), f"scapy decrypted {inside!r}, expected what was sent"


@pytest.mark.control
@pytest.mark.parametrize("name", ["XFRMA_SET_MARK", "XFRMA_SET_MARK_MASK"])
def test_a_short_attribute_is_refused(plug: Callable[[str], Gateway], name: str) -> None:
    gateway = plug("slow")
    with pytest.raises(NetlinkRefusedError) as refusal:
        gateway.sa(xs.AF_INET, xs.MODE_TRANSPORT, ("XFRMA_SET_MARK", bytes(4)), (name, b"\0\0"))
    assert refusal.value.errno in {errno.EINVAL, errno.ERANGE}, (
        f"{refusal.value}; expected EINVAL or ERANGE"
    )


@pytest.mark.proof(red=r"after UPDSA the decrypted packets carry the mark 0x0, expected 0x30$")
@FAMILIES
def test_updsa_changes_the_mark(plug: Callable[[str], Gateway], family: int) -> None:
    gateway = plug("slow")
    watch(gateway.namespace, port=PORT)
    sa = gateway.sa(family, xs.MODE_TRANSPORT, *xa.set_mark(0x10, 0xFF))
    gateway.xfrm.update(replace(sa, attributes=(xa.aead(KEY), *xa.set_mark(0x30, 0xFF))))
    gateway.inject(sa)
    marks = seen(gateway.namespace).marks
    assert marks == (0x30,), (
        f"after UPDSA the decrypted packets carry the mark {words(marks)}, expected 0x30"
    )


@pytest.mark.proof(red=r"after UPDSA without a mark the packets carry the mark 0x0, expected 0x10$")
def test_updsa_without_a_mark_keeps_it(plug: Callable[[str], Gateway]) -> None:
    gateway = plug("slow")
    watch(gateway.namespace, port=PORT)
    sa = gateway.sa(xs.AF_INET, xs.MODE_TRANSPORT, *xa.set_mark(0x10, 0xFF))
    gateway.xfrm.update(replace(sa, attributes=(xa.aead(KEY),)))
    gateway.inject(sa)
    marks = seen(gateway.namespace).marks
    assert marks == (0x10,), (
        f"after UPDSA without a mark the packets carry the mark {words(marks)}, expected 0x10"
    )


@pytest.mark.proof(red=r"after MIGRATE the decrypted packets carry the mark 0x0, expected 0x10$")
@BOTH_WAYS
@FAMILIES
def test_a_migrated_sa_marks_too(plug: Callable[[str], Gateway], way: str, family: int) -> None:
    gateway = plug(way)
    watch(gateway.namespace, port=PORT)
    sa = gateway.sa(family, xs.MODE_TUNNEL, *xa.set_mark(0x10, 0xFF))
    elsewhere = "10.9.0.3" if family == xs.AF_INET else "fd09::3"
    template = xs.Template(sa.source, sa.destination, mode=xs.MODE_TUNNEL)
    policy = xs.Policy(xs.Selector.everything(family), xs.DIR_IN, template)
    gateway.xfrm.migrate(policy, sa, (elsewhere, sa.destination))
    moved = replace(sa, source=elsewhere)
    found = gateway.xfrm.find(moved)
    assert found is not None, "the migrated SA is not in the dump"
    assert found.source == elsewhere, f"the SA comes from {found.source}, moved to {elsewhere}"
    received = gateway.inject(moved)
    marks = seen(gateway.namespace).marks
    assert received == PACKETS, f"{received} of {PACKETS} datagrams were received after MIGRATE"
    assert marks == (0x10,), (
        f"after MIGRATE the decrypted packets carry the mark {words(marks)}, expected 0x10"
    )


@pytest.mark.proof(red=r"a 32-bit caller's SA gives the mark 0x0, expected 0x10$")
@FAMILIES
def test_a_32_bit_caller_is_heard(plug: Callable[[str], Gateway], family: int) -> None:
    gateway = plug("slow")
    watch(gateway.namespace, port=PORT)
    ends = (Wire.FAR4, Wire.NEAR4) if family == xs.AF_INET else (Wire.FAR6, Wire.NEAR6)
    sa = xs.Sa(*ends, spi=0x32, attributes=(xa.aead(KEY), *xa.set_mark(0x10, 0xFF)))
    write_as_32_bits(gateway.xfrm.fileno(), sa_request_of_32_bits(sa, 0x32))
    gateway.xfrm.replies("NEWSA of 32 bits", 0x32)
    gateway.inject(sa)
    marks = seen(gateway.namespace).marks
    assert marks == (0x10,), f"a 32-bit caller's SA gives the mark {words(marks)}, expected 0x10"


@pytest.mark.proof(red=r"an SA of 'ip xfrm state add' gives the mark 0x0, expected 0x10$")
@BOTH_WAYS
def test_iproute2_sets_and_shows_it(plug: Callable[[str], Gateway], way: str) -> None:
    gateway = plug(way)
    watch(gateway.namespace, port=PORT)
    gateway.namespace.ip(
        f"xfrm state add src {Wire.FAR4} dst {Wire.NEAR4} proto esp spi 0x1234 mode transport"
        f" replay-window 32 aead rfc4106(gcm(aes)) 0x{KEY.hex()} 128 output-mark 0x10 mask 0xff"
    )
    gateway.inject(xs.Sa(Wire.FAR4, Wire.NEAR4, spi=0x1234))
    marks = seen(gateway.namespace).marks
    assert marks == (0x10,), (
        f"an SA of 'ip xfrm state add' gives the mark {words(marks)}, expected 0x10"
    )
    shown = gateway.namespace.run(["ip", "xfrm", "state"])
    assert "output-mark 0x10/0xff" in shown, f"'ip xfrm state' does not show the mark: {shown!r}"


@pytest.mark.control
def test_it_takes_cap_net_admin(plug: Callable[[str], Gateway]) -> None:
    gateway = plug("slow")
    with without_net_admin(), pytest.raises(NetlinkRefusedError) as refusal:
        gateway.sa(xs.AF_INET, xs.MODE_TRANSPORT, *xa.set_mark(0x10, 0xFF))
    assert refusal.value.errno == errno.EPERM, f"{refusal.value}; expected EPERM"
    count = len(gateway.xfrm.states())
    assert count == 0, f"the refused NEWSA left {count} SAs"


@pytest.mark.control
def test_the_same_sa_elsewhere_marks_nothing(
    plug: Callable[[str], Gateway], other_netns: Namespace
) -> None:
    marking = plug("slow").sa(xs.AF_INET, xs.MODE_TRANSPORT, *xa.set_mark(0x10, 0xFF))
    with contextlib.ExitStack() as undo:
        plugged = undo.enter_context(wire(other_netns, gro=False))
        with other_netns.inside():
            xfrm = undo.enter_context(contextlib.closing(XfrmSocket()))
        other = Gateway(other_netns, xfrm, plugged)
        watch(other_netns, port=PORT)
        unmarked = other.sa(xs.AF_INET, xs.MODE_TRANSPORT)
        assert unmarked.spi == marking.spi, "the two SAs are not the same but for the mark"
        other.inject(unmarked)
    marks = seen(other_netns).marks
    assert marks == (0,), f"in another namespace the marks are {words(marks)}, expected 0x0"


@pytest.mark.control
def test_a_namespace_goes_away_with_its_marked_sas(other_netns: Namespace) -> None:
    with contextlib.ExitStack() as undo:
        plugged = undo.enter_context(wire(other_netns, gro=True))
        with other_netns.inside():
            xfrm = undo.enter_context(contextlib.closing(XfrmSocket()))
        gateway = Gateway(other_netns, xfrm, plugged)
        for family in (xs.AF_INET, xs.AF_INET6):
            gateway.inject(gateway.sa(family, xs.MODE_TRANSPORT, *xa.set_mark(0x10, 0xFF)))
    assert goes_away(other_netns), "a namespace with two marked SAs was there 20 s after its end"


@pytest.mark.proof(red=r"behind a cipher that answers later the mark is 0x0, expected 0x10$")
@BOTH_WAYS
@FAMILIES
def test_a_cipher_that_answers_later_changes_nothing(
    plug: Callable[[str], Gateway], family: int, way: str
) -> None:
    gateway = plug(way)
    watch(gateway.namespace, port=PORT)
    with asynchronous() as driver:
        received = gateway.inject(gateway.sa(family, xs.MODE_TUNNEL, *xa.set_mark(0x10, 0xFF)))
        used = in_use(driver)
        gateway.xfrm.flush()
    marks = seen(gateway.namespace).marks
    assert used, f"the SA did not run through {driver}"
    assert received == PACKETS, f"{received} of {PACKETS} datagrams were received by {driver}"
    assert marks == (0x10,), (
        f"behind a cipher that answers later the mark is {words(marks)}, expected 0x10"
    )
