# SPDX-License-Identifier: GPL-2.0-only
"""E4: an SA with XFRM_SA_XFLAG_UDP_ZERO_CSUM6_TX sends ESP in UDP without UDP checksum.

Every packet is read off a TUN device, so that no driver's offload and no
veth stands between; scapy opens the ESP and works out the checksum.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

import esp_in_udp as eu
import namespaces
import xfrm_attributes as xa
import xfrm_structures as xs
from async_crypto import asynchronous, in_use
from callers import write_as_32_bits
from esp_oracle import EspOracle
from netlink_frames import NetlinkRefusedError
from wire import Wire, is_esp
from xfrm_netlink import XfrmSocket, sa_request_of_32_bits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from namespaces import Namespace, Pair

FLAG = xa.extra_flags(eu.ZERO_CHECKSUM)
ELSEWHERE6 = "fd09::3"
BIG = bytes(range(256)) * 12
MODES = pytest.mark.parametrize(
    "mode", [xs.MODE_TRANSPORT, xs.MODE_TUNNEL], ids=["transport", "tunnel"]
)
#: What each proof says of a checksum that is there.
RED = r"the UDP checksum on the wire is 0x[0-9a-f]{4}, expected 0x0000$"


@pytest.fixture
def gateway(netns: Namespace) -> Iterator[eu.Gateway]:
    """Give a gateway that sends ESP in UDP over a wire."""
    with eu.gateway(netns) as plugged:
        yield plugged


def is_left_out(left: eu.Datagram) -> None:
    """Assert that a datagram has no checksum."""
    assert left.checksum == 0, (
        f"the UDP checksum on the wire is {left.checksum:#06x}, expected 0x0000"
    )


def is_right(left: eu.Datagram) -> None:
    """Assert that a datagram has the checksum scapy works out."""
    assert left.checksum == left.right_checksum, (
        f"the UDP checksum on the wire is {left.checksum:#06x}, expected {left.right_checksum:#06x}"
    )


@pytest.mark.proof(red=RED)
@MODES
def test_with_the_flag_there_is_no_checksum(gateway: eu.Gateway, mode: int) -> None:
    is_left_out(gateway.sent(gateway.output(FLAG, mode=mode)))


@pytest.mark.control
@MODES
def test_without_the_flag_the_checksum_is_right(gateway: eu.Gateway, mode: int) -> None:
    is_right(gateway.sent(gateway.output(mode=mode)))


@pytest.mark.control
def test_the_other_extra_flags_leave_the_checksum(gateway: eu.Gateway) -> None:
    dont_encap_dscp, oseq_may_wrap = 1, 2
    others = xa.extra_flags(dont_encap_dscp | oseq_may_wrap)
    is_right(gateway.sent(gateway.output(others)))


def without_secrets(source_port: int, *attributes: tuple[str, bytes]) -> xs.Sa:
    """Return an SA whose packets are the same each time: no cipher and so no random IV."""
    return xs.Sa(
        Wire.NEAR6,
        Wire.FAR6,
        spi=eu.SPI,
        replay_window=0,
        attributes=(
            xa.encryption("ecb(cipher_null)", b""),
            xa.authentication("hmac(sha256)", bytes(32), 128),
            xa.encap(source_port, eu.ENCAP_PORT),
            *attributes,
        ),
    )


def sent_once(gateway: eu.Gateway, made: xs.Sa) -> eu.Datagram:
    """Return the first packet of a new SA, which is then gone again."""
    gateway.xfrm.add(made)
    gateway.say(b"the same each time")
    packet = gateway.wire.receive(eu.is_udp)
    gateway.xfrm.delete(made)
    assert packet is not None, "no UDP datagram left within 5 s"
    return eu.Datagram(packet)


def source_port_for_zero(gateway: eu.Gateway) -> int:
    """Find the source port with which the checksum of the SA's first packet adds up to 0."""
    gateway.xfrm.add_policy(eu.policy(without_secrets(1), xs.DIR_OUT))
    # In ones' complement, where 0xffff is 0, a port that is larger by the sum makes the sum 0.
    return (1 + sent_once(gateway, without_secrets(1)).sum) % 0xFFFF or 0xFFFF


@pytest.mark.control
def test_a_checksum_that_adds_up_to_zero_is_sent_as_ffff(gateway: eu.Gateway) -> None:
    left = sent_once(gateway, without_secrets(source_port_for_zero(gateway)))
    assert left.sum == 0, f"the packet was made for the sum 0 and has {left.sum:#06x}"
    is_right(left)


@pytest.mark.proof(red=r"the UDP checksum on the wire is 0xffff, expected 0x0000$")
def test_with_the_flag_ffff_is_not_sent_either(gateway: eu.Gateway) -> None:
    left = sent_once(gateway, without_secrets(source_port_for_zero(gateway), FLAG))
    assert left.sum == 0, f"the packet was made for the sum 0 and has {left.sum:#06x}"
    is_left_out(left)


def sent_in_fragments(gateway: eu.Gateway, made: xs.Sa) -> eu.Datagram:
    """Send what does not fit into one packet and return it put together, opened by scapy."""
    gateway.say(BIG)
    parts: list[bytes] = []
    while not parts or eu.more_fragments(parts[-1]):
        part = gateway.wire.receive(eu.is_fragment)
        assert part is not None, f"{len(parts)} fragments left within 5 s, and not the last"
        parts.append(part)
    left = eu.Datagram(eu.reassembled(parts))
    eu.opens(made, left, BIG)
    return left


@pytest.mark.proof(red=RED)
def test_with_the_flag_fragments_have_no_checksum(gateway: eu.Gateway) -> None:
    is_left_out(sent_in_fragments(gateway, gateway.output(FLAG)))


@pytest.mark.control
def test_without_the_flag_the_checksum_is_over_all_fragments(gateway: eu.Gateway) -> None:
    is_right(sent_in_fragments(gateway, gateway.output()))


@pytest.mark.proof(red=RED)
def test_asynchronous_crypto_leaves_the_checksum_out(gateway: eu.Gateway) -> None:
    with asynchronous() as driver:
        made = gateway.output(FLAG)
        used = in_use(driver)
        left = gateway.sent(made)
        gateway.xfrm.flush()
    assert used, f"{driver} has no user, expected the SA"
    is_left_out(left)


@pytest.mark.control
def test_asynchronous_crypto_makes_the_checksum_right(gateway: eu.Gateway) -> None:
    with asynchronous():
        left = gateway.sent(gateway.output())
        gateway.xfrm.flush()
    is_right(left)


@pytest.mark.proof(red=RED)
def test_updsa_without_the_flag_leaves_it(gateway: eu.Gateway) -> None:
    made = gateway.output(FLAG)
    gateway.xfrm.update(eu.sa(made.source, made.destination, made.mode))
    is_left_out(gateway.sent(made))


@pytest.mark.control
def test_updsa_with_the_flag_does_not_set_it(gateway: eu.Gateway) -> None:
    made = gateway.output()
    gateway.xfrm.update(eu.sa(made.source, made.destination, made.mode, FLAG))
    is_right(gateway.sent(made))
    found = gateway.xfrm.find(made)
    flags = found and found.attribute("XFRMA_SA_EXTRA_FLAGS")
    assert flags is None, f"UPDSA gave the SA the extra flags {flags!r}, expected none"


@pytest.mark.proof(red=RED)
def test_updsa_of_a_larval_sa_sets_the_flag(gateway: eu.Gateway) -> None:
    wanted = eu.sa(Wire.NEAR6, Wire.FAR6, xs.MODE_TRANSPORT, FLAG)
    larval = gateway.xfrm.allocate_spi(replace(wanted, spi=0, attributes=()))
    made = replace(wanted, spi=larval.spi)
    gateway.xfrm.update(made)
    gateway.xfrm.add_policy(eu.policy(made, xs.DIR_OUT))
    is_left_out(gateway.sent(made))


@pytest.mark.proof(red=RED)
def test_an_sa_made_from_its_dump_has_the_flag(gateway: eu.Gateway) -> None:
    made = gateway.output(FLAG)
    dumped = gateway.xfrm.find(made)
    assert dumped is not None, "the SA is not in the dump"
    shown = dict([FLAG]).items() <= dict(dumped.attributes).items()
    assert shown, f"the dump shows {dumped.attributes}, expected {FLAG} in it"
    gateway.xfrm.delete(made)
    kept = {name for name, _ in made.attributes}
    again = tuple((name, value) for name, value in dumped.attributes if name in kept)
    gateway.xfrm.add(replace(dumped, attributes=again))
    is_left_out(gateway.sent(made))


@pytest.mark.proof(red=r"an SA was put back without its encapsulation, flag and all$")
def test_an_sa_put_back_without_encapsulation_has_to_be_without_the_flag(
    gateway: eu.Gateway,
) -> None:
    # As charon does when a NAT is gone: it deletes the SA before it installs the other one.
    made = gateway.output(FLAG)
    dumped = gateway.xfrm.find(made)
    assert dumped is not None, "the SA is not in the dump"
    gateway.xfrm.delete(made)
    bare = replace(dumped, attributes=(xa.aead(eu.KEY), FLAG))
    refusal = None
    try:
        gateway.xfrm.add(bare)
    except NetlinkRefusedError as error:
        refusal = error
    assert refusal is not None, "an SA was put back without its encapsulation, flag and all"
    assert refusal.errno == errno.EINVAL, f"{refusal}; expected EINVAL"
    left = len(gateway.xfrm.states())
    assert left == 0, f"the refused NEWSA left {left} SAs behind"
    gateway.xfrm.add(replace(bare, attributes=(xa.aead(eu.KEY), xa.extra_flags(0))))
    gateway.say(b"without a NAT")
    packet = gateway.wire.receive(is_esp)
    assert packet is not None, "no ESP left within 5 s after the SA was put back without the flag"
    inside = EspOracle(made, eu.KEY).open(packet)
    assert inside.endswith(b"without a NAT"), f"scapy decrypted {inside!r}, expected what was sent"


@pytest.mark.proof(red=RED)
def test_migrate_to_another_address_keeps_the_flag(gateway: eu.Gateway) -> None:
    made = gateway.output(FLAG, mode=xs.MODE_TUNNEL)
    gateway.xfrm.migrate(eu.policy(made, xs.DIR_OUT), made, (Wire.NEAR6, ELSEWHERE6))
    is_left_out(gateway.sent(replace(made, destination=ELSEWHERE6)))


@pytest.mark.proof(red=RED)
def test_migrate_to_ipv4_and_back_keeps_the_flag(gateway: eu.Gateway) -> None:
    made = gateway.output(FLAG, mode=xs.MODE_TUNNEL)
    caught = eu.policy(made, xs.DIR_OUT)
    gateway.xfrm.migrate(caught, made, (Wire.NEAR4, Wire.FAR4))
    gateway.say(b"over IPv4", xs.MODE_TUNNEL)
    packet = gateway.wire.receive(eu.is_udp)
    assert packet is not None, "no UDP datagram left over IPv4 within 5 s"
    assert packet[0] >> 4 == 4, "the datagram after MIGRATE to IPv4 is one of IPv6"
    assert packet[26:28] == b"\0\0", f"over IPv4 the UDP checksum is {packet[26:28].hex()}"
    over_ipv4 = replace(made, source=Wire.NEAR4, destination=Wire.FAR4)
    gateway.xfrm.migrate(caught, over_ipv4, (Wire.NEAR6, Wire.FAR6))
    is_left_out(gateway.sent(made))


@pytest.mark.proof(red=RED)
def test_a_32_bit_caller_sets_the_flag(gateway: eu.Gateway) -> None:
    made = eu.sa(Wire.NEAR6, Wire.FAR6, xs.MODE_TRANSPORT, FLAG)
    write_as_32_bits(gateway.xfrm.fileno(), sa_request_of_32_bits(made, sequence=77))
    gateway.xfrm.replies("NEWSA of a 32-bit caller", 77)
    gateway.xfrm.add_policy(eu.policy(made, xs.DIR_OUT))
    is_left_out(gateway.sent(made))


@pytest.mark.proof(red=RED)
def test_iproute2_sets_the_flag(gateway: eu.Gateway) -> None:
    made = eu.sa(Wire.NEAR6, Wire.FAR6, xs.MODE_TRANSPORT)
    gateway.namespace.ip(
        f"xfrm state add src {made.source} dst {made.destination} proto esp spi {eu.SPI:#x} "
        f"mode transport aead rfc4106(gcm(aes)) 0x{eu.KEY.hex()} 128 "
        f"encap espinudp {eu.ENCAP_PORT} {eu.ENCAP_PORT} :: extra-flag {eu.ZERO_CHECKSUM:#x}"
    )
    gateway.xfrm.add_policy(eu.policy(made, xs.DIR_OUT))
    is_left_out(gateway.sent(made))


@pytest.mark.control
def test_another_namespace_keeps_its_checksums(gateway: eu.Gateway, other_netns: Namespace) -> None:
    gateway.output(FLAG)
    with eu.gateway(other_netns) as elsewhere:
        made = elsewhere.output()
        gateway.say(b"without")
        is_right(elsewhere.sent(made))


def across(pair: Pair) -> xs.Sa:
    """Return the SA with the flag from the left to the right of a veth."""
    return eu.sa(pair.LEFT6, pair.RIGHT6, xs.MODE_TRANSPORT, FLAG)


def said_across(pair: Pair, receiver: socket.socket, data: bytes) -> bytes | None:
    """Send a datagram to the right; return what comes of it, None when its checksum is at fault."""
    errors = eu.checksum_errors(pair.right)
    with pair.left.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, (pair.RIGHT6, eu.INNER_PORT))

    def has_come() -> bool:
        return bool(select.select([receiver], [], [], 0)[0])

    decided = namespaces.wait_until(
        lambda: has_come() or eu.checksum_errors(pair.right) > errors, seconds=5
    )
    assert decided, f"nothing came of {data!r} within 5 s"
    return receiver.recv(100) if has_come() else None


@pytest.mark.proof(red=r"a receiver that did not opt in got b'too early', expected None$")
def test_the_receiver_has_to_opt_in(pair: Pair) -> None:
    with contextlib.ExitStack() as undo:
        for side in (pair.left, pair.right):
            with side.inside():
                xfrm = undo.enter_context(contextlib.closing(XfrmSocket()))
            made = across(pair)
            if side is pair.left:
                xfrm.add(made)
                xfrm.add_policy(eu.policy(made, xs.DIR_OUT))
            else:
                xfrm.add(eu.sa(made.source, made.destination, made.mode))
        encap = undo.enter_context(eu.encap_socket(pair.right, zero_checksums=False))
        receiver = undo.enter_context(pair.right.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        receiver.bind(("::", eu.INNER_PORT))
        early = said_across(pair, receiver, b"too early")
        assert early is None, f"a receiver that did not opt in got {early!r}, expected None"
        eu.accept_zero_checksums(encap, wanted=True)
        late = said_across(pair, receiver, b"in time")
        assert late == b"in time", f"a receiver that opted in got {late!r}, expected b'in time'"


@pytest.mark.control
def test_a_namespace_with_such_an_sa_goes_away() -> None:
    # One worker takes namespaces down in turn: the second goes only when the
    # first, with all that its SA and its packets held, is gone.
    for _ in range(2):
        with namespaces.veth_pair() as pair:
            with pair.left.inside():
                xfrm = XfrmSocket()
            made = across(pair)
            xfrm.add(made)
            xfrm.add_policy(eu.policy(made, xs.DIR_OUT))
            with pair.left.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"goodbye", (pair.RIGHT6, eu.INNER_PORT))
            xfrm.close()
            pair.left.close()
            gone = namespaces.wait_until(partial(has_no_veth, pair), seconds=10)
            assert gone, "the namespace is still there 10 s after its last user"


def has_no_veth(pair: Pair) -> bool:
    """Tell whether the right side has lost its end of the veth."""
    try:
        pair.right.index(pair.DEVICE)
    except OSError:
        return True
    return False
