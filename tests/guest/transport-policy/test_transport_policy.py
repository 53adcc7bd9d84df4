# SPDX-License-Identifier: GPL-2.0-only
"""E1: with XFRM_SA_XFLAG_ENFORCE_POLICY a transport-mode SA lets nothing in without a policy.

What became of a packet is told by the socket it was meant for and by the
counters of /proc/net/xfrm_stat. Single packets come from scapy's ESP through
a TUN device, whole conversations from a second kernel over a veth.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import select
import socket
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import xfrm_attributes as xa
import xfrm_structures as xs
from async_crypto import asynchronous, in_use
from callers import without_net_admin, write_as_32_bits
from esp_oracle import EspOracle, plain
from namespaces import Pair, SetUpError, veth_pair, wait_until
from netlink_frames import NetlinkRefusedError
from wire import Wire, is_esp, wire
from xfrm_netlink import XfrmSocket, sa_request_of_32_bits
from xfrm_sa_flags import NotTakenError, Setter, main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from namespaces import Namespace

ENFORCE_POLICY = 0x01000000
ENFORCING = xa.extra_flags(ENFORCE_POLICY)
KEY = bytes(range(20))
AUTHENTICATION_KEY = bytes(range(32))

WANTED, UNWANTED = 80, 81
TCP, UDP, IPCOMP = 6, 17, 108
OFFLOAD_INBOUND, OFFLOAD_PACKET = 2, 4
IP_XFRM_POLICY = 17
NAT_T_PORT = 4500
UDP_ENCAP = 100

DELIVERED = "delivered"
NO_POLICY = "XfrmInNoPols+1"
PASSED_OVER = "XfrmInTmplMismatch+1"

FAMILIES = pytest.mark.parametrize("family", [xs.AF_INET, xs.AF_INET6], ids=["ipv4", "ipv6"])


def counters(namespace: Namespace) -> dict[str, int]:
    """Read /proc/net/xfrm_stat of a namespace."""
    with namespace.inside():
        text = Path("/proc/thread-self/net/xfrm_stat").read_text(encoding="ascii")
    return {name: int(count) for name, count in map(str.split, text.splitlines())}


def fate(
    namespace: Namespace,
    act: Callable[[], object],
    arrived: Callable[[], bool],
    *,
    counts: int = 1,
) -> str:
    """Send a packet to a namespace by ``act``; tell whether it was delivered and what was counted.

    It waits until either is seen, five seconds at most; ``counts`` is how often a
    packet has to be counted before it is known to be lost.
    """
    before = counters(namespace)
    delivered = False

    def decided() -> bool:
        nonlocal delivered
        delivered = delivered or arrived()
        counted = sum(counters(namespace).values()) - sum(before.values())
        return delivered or counted >= counts

    act()
    wait_until(decided, seconds=5)
    words = [DELIVERED] if delivered else []
    for name, count in counters(namespace).items():
        words += [f"{name}+{count - before[name]}"] if count != before[name] else []
    return ", ".join(words) or "lost without a count"


def readable(opened: socket.socket) -> bool:
    """Tell whether a socket has something to read or to accept."""
    return bool(select.select([opened], [], [], 0)[0])


def exactly(source: str, destination: str, proto: int, port: int = 0) -> xs.Selector:
    """Return the selector of one pair of hosts; a port of 0 stands for all."""
    length = 32 if xs.family_of(source) == xs.AF_INET else 128
    ends = (f"{source}/{length}", f"{destination}/{length}")
    return xs.Selector(*ends, proto=proto, destination_port=port)


def inbound(sa: xs.Sa, port: int, *, optional: bool = False) -> xs.Policy:
    """Return the policy that wants UDP to a port to come through an SA."""
    ends = (sa.source, sa.destination)
    template = xs.Template(*ends, mode=sa.mode, reqid=sa.reqid, optional=optional)
    return xs.Policy(exactly(*ends, UDP, port), xs.DIR_IN, template)


def refusal_of(request: Callable[[xs.Sa], None], sa: xs.Sa) -> NetlinkRefusedError | None:
    """Ask for an SA; return why it was refused, None when it was not."""
    try:
        request(sa)
    except NetlinkRefusedError as refusal:
        return refusal
    return None


@dataclass(frozen=True)
class Gateway:
    """A namespace that takes from the wire what scapy has sealed."""

    namespace: Namespace
    xfrm: XfrmSocket
    wire: Wire
    oracles: dict[tuple[str, int], EspOracle] = field(default_factory=dict)

    @staticmethod
    def sa(family: int, *attributes: tuple[str, bytes], mode: int = xs.MODE_TRANSPORT) -> xs.Sa:
        """Return an input SA, not yet installed."""
        ends = (Wire.FAR4, Wire.NEAR4) if family == xs.AF_INET else (Wire.FAR6, Wire.NEAR6)
        return xs.Sa(*ends, spi=0x1234, mode=mode, reqid=1, attributes=(xa.aead(KEY), *attributes))

    def install(self, family: int, *attributes: tuple[str, bytes]) -> xs.Sa:
        """Install an input SA for transport mode."""
        made = self.sa(family, *attributes)
        self.xfrm.add(made)
        return made

    def through(self, sa: xs.Sa, port: int) -> str:
        """Send a UDP datagram to a port through an SA; return its fate."""
        oracle = self.oracles.setdefault((sa.source, sa.spi), EspOracle(sa, KEY))
        inner = (sa.source, sa.destination) if sa.mode == xs.MODE_TUNNEL else None
        return self.udp(oracle.seal(b"let me in", inner=inner, port=port), port)

    def udp(
        self,
        packet: bytes,
        port: int,
        prepare: Callable[[socket.socket], None] = lambda _socket: None,
    ) -> str:
        """Send a packet that holds a UDP datagram; return its fate."""
        family = xs.AF_INET if packet[0] >> 4 == 4 else xs.AF_INET6
        with self.namespace.socket(family, socket.SOCK_DGRAM) as receiver:
            prepare(receiver)
            receiver.bind(("", port))
            return fate(self.namespace, lambda: self.wire.send(packet), lambda: readable(receiver))


@contextlib.contextmanager
def plugged(namespace: Namespace, *, gro: bool = False) -> Iterator[Gateway]:
    """Make a gateway of a namespace; its SAs are flushed in the end."""
    with wire(namespace, gro=gro) as device:
        with namespace.inside():
            xfrm = XfrmSocket()
        try:
            yield Gateway(namespace, xfrm, device)
        finally:
            xfrm.flush()
            xfrm.close()


@pytest.fixture
def gateway(netns: Namespace) -> Iterator[Gateway]:
    """Give a gateway whose packets take the slow path."""
    with plugged(netns) as made:
        yield made


@pytest.mark.proof(red=r"port 81 through the SA: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
@pytest.mark.parametrize("way", ["slow", "gro"])
def test_what_no_policy_asks_for_is_dropped(netns: Namespace, family: int, way: str) -> None:
    with plugged(netns, gro=way == "gro") as gateway:
        sa = gateway.install(family, ENFORCING)
        gateway.xfrm.add_policy(inbound(sa, WANTED))
        wanted = gateway.through(sa, WANTED)
        unwanted = gateway.through(sa, UNWANTED)
    assert wanted == DELIVERED, f"port 80 through the SA: {wanted}, expected delivered"
    assert unwanted == NO_POLICY, f"port 81 through the SA: {unwanted}, expected {NO_POLICY}"


@pytest.mark.control
@FAMILIES
def test_without_the_flag_all_is_accepted(gateway: Gateway, family: int) -> None:
    sa = gateway.install(family)
    gateway.xfrm.add_policy(inbound(sa, WANTED))
    seen = gateway.through(sa, UNWANTED)
    assert seen == DELIVERED, f"port 81 through an SA without the flag: {seen}, expected delivered"


@pytest.mark.proof(red=r"port 81, no policy at all: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_with_no_policy_at_all_nothing_passes(gateway: Gateway, family: int) -> None:
    seen = gateway.through(gateway.install(family, ENFORCING), UNWANTED)
    assert seen == NO_POLICY, f"port 81, no policy at all: {seen}, expected {NO_POLICY}"


@pytest.mark.control
@FAMILIES
def test_plaintext_is_not_affected(gateway: Gateway, family: int) -> None:
    sa = gateway.install(family, ENFORCING)
    gateway.xfrm.add_policy(inbound(sa, WANTED))
    clear = plain(sa.source, sa.destination, b"in clear", port=UNWANTED)
    seen = gateway.udp(clear, UNWANTED)
    assert seen == DELIVERED, f"plaintext to port 81: {seen}, expected delivered"
    clear = plain(sa.source, sa.destination, b"in clear", port=WANTED)
    seen = gateway.udp(clear, WANTED)
    assert seen == PASSED_OVER, f"plaintext to port 80: {seen}, expected {PASSED_OVER}"


@pytest.mark.proof(red=r"port 81, two policies for others: delivered, expected XfrmInNoPols\+1$")
def test_one_sa_serves_two_policies(gateway: Gateway) -> None:
    sa = gateway.install(xs.AF_INET, ENFORCING)
    for port in (WANTED, 443):
        gateway.xfrm.add_policy(inbound(sa, port))
        seen = gateway.through(sa, port)
        assert seen == DELIVERED, f"port {port}, which has a policy: {seen}, expected delivered"
    seen = gateway.through(sa, UNWANTED)
    assert seen == NO_POLICY, f"port 81, two policies for others: {seen}, expected {NO_POLICY}"


@pytest.mark.proof(red=r"under a policy without a template: delivered, expected XfrmInTmplM")
def test_a_policy_for_plaintext_does_not_cover_an_sa(gateway: Gateway) -> None:
    sa = gateway.install(xs.AF_INET, ENFORCING)
    gateway.xfrm.add_policy(replace(inbound(sa, WANTED), template=None))
    seen = gateway.through(sa, WANTED)
    assert seen == PASSED_OVER, f"under a policy without a template: {seen}, expected {PASSED_OVER}"


@pytest.mark.control
@FAMILIES
def test_a_template_of_level_use_covers_an_sa(gateway: Gateway, family: int) -> None:
    sa = gateway.install(family, ENFORCING)
    gateway.xfrm.add_policy(inbound(sa, WANTED, optional=True))
    seen = gateway.through(sa, WANTED)
    assert seen == DELIVERED, f"under a template of level use: {seen}, expected delivered"
    clear = plain(sa.source, sa.destination, b"in clear", port=WANTED)
    seen = gateway.udp(clear, WANTED)
    assert seen == DELIVERED, f"plaintext, level use: {seen}, expected delivered"


@pytest.mark.control
def test_a_sockets_own_policy_counts(gateway: Gateway) -> None:
    sa = gateway.install(xs.AF_INET, ENFORCING)
    policy = inbound(sa, UNWANTED)
    option = policy.pack() + b"".join(template.pack() for template in policy.templates)
    packet = EspOracle(sa, KEY).seal(b"let me in", port=UNWANTED)
    seen = gateway.udp(
        packet,
        UNWANTED,
        prepare=lambda opened: opened.setsockopt(socket.IPPROTO_IP, IP_XFRM_POLICY, option),
    )
    assert seen == DELIVERED, f"for a socket with a policy: {seen}, expected delivered"


@pytest.mark.control
def test_disable_policy_of_the_interface_exempts(gateway: Gateway) -> None:
    gateway.namespace.sysctl(f"net/ipv4/conf/{Wire.DEVICE}/disable_policy", 1)
    seen = gateway.through(gateway.install(xs.AF_INET, ENFORCING), UNWANTED)
    assert seen == DELIVERED, f"on an interface with disable_policy: {seen}, expected delivered"


@pytest.mark.proof(red=r"port 81 through an xfrm interface: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_an_xfrm_interface_asks_its_own_policies(gateway: Gateway, family: int) -> None:
    sa = gateway.install(family, ENFORCING, ("XFRMA_IF_ID", struct.pack("=I", 7)))
    ends = f"src {sa.source} dst {sa.destination}"
    gateway.namespace.ip(
        f"link add ipsec type xfrm dev {Wire.DEVICE} if_id 7",
        "link set ipsec up",
        f"xfrm policy add {ends} proto udp dport {WANTED} dir in if_id 7"
        f" tmpl {ends} proto esp reqid {sa.reqid} mode transport",
    )
    # Of no interface, so it lets nothing in there.
    gateway.xfrm.add_policy(inbound(sa, UNWANTED))
    wanted = gateway.through(sa, WANTED)
    unwanted = gateway.through(sa, UNWANTED)
    assert wanted == DELIVERED, f"port 80 through an xfrm interface: {wanted}, expected delivered"
    assert unwanted == NO_POLICY, (
        f"port 81 through an xfrm interface: {unwanted}, expected {NO_POLICY}"
    )


@pytest.mark.proof(red=r"forwarded by DNAT: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_what_is_forwarded_is_checked_too(gateway: Gateway, family: int) -> None:
    sa = gateway.install(family, ENFORCING)
    beyond, table = ("10.77.0.9", "ip") if family == xs.AF_INET else ("fd77::9", "ip6")
    for version in ("ipv4", "ipv6"):
        gateway.namespace.sysctl(f"net/{version}/conf/all/forwarding", 1)
    gateway.namespace.ip(f"route add {beyond} dev {Wire.DEVICE}")
    gateway.namespace.run(
        ["nft", "-f", "-"],
        text=f"table {table} away {{ chain pre {{ type nat hook prerouting priority -100;\n"
        f"udp dport {UNWANTED} dnat to {beyond};\n}}\n}}\n",
    )
    packet = EspOracle(sa, KEY).seal(b"let me through", port=UNWANTED)
    destination = ipaddress.ip_address(beyond).packed

    def is_for_beyond(sent: bytes) -> bool:
        return (sent[16:20] if sent[0] >> 4 == 4 else sent[24:40]) == destination

    def left() -> bool:
        return gateway.wire.receive(is_for_beyond, timeout=0) is not None

    seen = fate(gateway.namespace, lambda: gateway.wire.send(packet), left)
    assert seen == NO_POLICY, f"forwarded by DNAT: {seen}, expected {NO_POLICY}"


@pytest.mark.control
@FAMILIES
def test_tunnel_mode_is_as_it_was(gateway: Gateway, family: int) -> None:
    sa = gateway.sa(family, mode=xs.MODE_TUNNEL)
    gateway.xfrm.add(sa)
    gateway.xfrm.add_policy(inbound(sa, WANTED))
    seen = gateway.through(sa, WANTED)
    assert seen == DELIVERED, f"port 80 through a tunnel: {seen}, expected delivered"
    seen = gateway.through(sa, UNWANTED)
    assert seen == NO_POLICY, f"port 81 through a tunnel: {seen}, expected {NO_POLICY}"


@pytest.mark.control
def test_another_namespace_notices_nothing(gateway: Gateway, other_netns: Namespace) -> None:
    with plugged(other_netns) as elsewhere:
        sa = elsewhere.install(xs.AF_INET)
        gateway.install(xs.AF_INET, ENFORCING)
        seen = elsewhere.through(sa, UNWANTED)
    assert seen == DELIVERED, f"port 81 in the other namespace: {seen}, expected delivered"


@pytest.mark.proof(red=r"after UPDSA: delivered, expected XfrmInNoPols\+1$")
@pytest.mark.parametrize(
    "update", [(), (xa.extra_flags(0),)], ids=["no-extra-flags", "extra-flags-0"]
)
def test_updsa_does_not_lose_the_flag(
    gateway: Gateway, update: tuple[tuple[str, bytes], ...]
) -> None:
    sa = gateway.install(xs.AF_INET, ENFORCING)
    gateway.xfrm.update(gateway.sa(xs.AF_INET, *update))
    seen = gateway.through(sa, UNWANTED)
    assert seen == NO_POLICY, f"after UPDSA: {seen}, expected {NO_POLICY}"
    found = gateway.xfrm.find(sa)
    flags = None if found is None else found.attribute("XFRMA_SA_EXTRA_FLAGS")
    assert flags == ENFORCING[1], f"after UPDSA the dump shows {flags!r}, expected the flag"


@pytest.mark.proof(red=r"after UPDSA with the flag: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_updsa_sets_the_flag(gateway: Gateway, family: int) -> None:
    sa = gateway.install(family)
    seen = gateway.through(sa, UNWANTED)
    assert seen == DELIVERED, f"before UPDSA: {seen}, expected delivered"
    gateway.xfrm.update(gateway.sa(family, ENFORCING))
    seen = gateway.through(sa, UNWANTED)
    assert seen == NO_POLICY, f"after UPDSA with the flag: {seen}, expected {NO_POLICY}"
    found = gateway.xfrm.find(sa)
    flags = None if found is None else found.attribute("XFRMA_SA_EXTRA_FLAGS")
    assert flags == ENFORCING[1], f"after UPDSA the dump shows {flags!r}, expected the flag"


@pytest.mark.proof(red=r"after UPDSA of a larval SA: delivered, expected XfrmInNoPols\+1$")
def test_updsa_of_a_larval_sa_takes_the_flag(gateway: Gateway) -> None:
    wanted = gateway.sa(xs.AF_INET, ENFORCING)
    larval = gateway.xfrm.allocate_spi(replace(wanted, spi=0, attributes=()))
    sa = replace(wanted, spi=larval.spi)
    gateway.xfrm.update(sa)
    seen = gateway.through(sa, UNWANTED)
    assert seen == NO_POLICY, f"after UPDSA of a larval SA: {seen}, expected {NO_POLICY}"


@pytest.mark.proof(red=r"UPDSA gave a tunnel the flag, expected EINVAL$")
def test_updsa_does_not_give_a_tunnel_the_flag(gateway: Gateway) -> None:
    gateway.xfrm.add(gateway.sa(xs.AF_INET, mode=xs.MODE_TUNNEL))
    before = gateway.xfrm.states()
    update = replace(gateway.sa(xs.AF_INET, ENFORCING), lifetime=xs.Lifetime(hard_add_seconds=3600))
    refusal = refusal_of(gateway.xfrm.update, update)
    assert refusal is not None, "UPDSA gave a tunnel the flag, expected EINVAL"
    assert refusal.errno == errno.EINVAL, f"{refusal}; expected EINVAL"
    assert "ENFORCE_POLICY" in refusal.extack or not gives_reasons(gateway.xfrm), (
        f"{refusal}; expected a reason that names ENFORCE_POLICY"
    )
    after = gateway.xfrm.states()
    assert after == before, f"the refused UPDSA turned {before} into {after}"


@pytest.mark.proof(red=r"after MIGRATE: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_migration_keeps_the_flag(gateway: Gateway, family: int) -> None:
    sa = gateway.install(family, ENFORCING)
    policy = inbound(sa, WANTED)
    gateway.xfrm.add_policy(policy)
    elsewhere = "10.9.0.3" if family == xs.AF_INET else "fd09::3"
    gateway.xfrm.migrate(policy, sa, (elsewhere, sa.destination))
    states = gateway.xfrm.states()
    sources = [state.source for state in states]
    assert sources == [elsewhere], f"after MIGRATE the SAs come from {sources}"
    seen = gateway.through(replace(sa, source=elsewhere), UNWANTED)
    assert seen == NO_POLICY, f"after MIGRATE: {seen}, expected {NO_POLICY}"
    flags = states[0].attribute("XFRMA_SA_EXTRA_FLAGS")
    assert flags == ENFORCING[1], f"after MIGRATE the dump shows {flags!r}, expected the flag"


@pytest.mark.proof(red=r"asked by a 32-bit program: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_a_32_bit_caller_is_heard(gateway: Gateway, family: int) -> None:
    sa = gateway.sa(family, ENFORCING)
    write_as_32_bits(gateway.xfrm.fileno(), sa_request_of_32_bits(sa, sequence=0x32))
    gateway.xfrm.replies("NEWSA of 32 bits", 0x32)
    seen = gateway.through(sa, UNWANTED)
    assert seen == NO_POLICY, f"asked by a 32-bit program: {seen}, expected {NO_POLICY}"


@pytest.mark.control
def test_it_takes_cap_net_admin(gateway: Gateway) -> None:
    sa = gateway.install(xs.AF_INET)
    for request in (gateway.xfrm.add, gateway.xfrm.update):
        with without_net_admin():
            refusal = refusal_of(request, replace(sa, attributes=(*sa.attributes, ENFORCING)))
        assert refusal is not None, "the flag was granted without CAP_NET_ADMIN"
        assert refusal.errno == errno.EPERM, f"{refusal}; expected EPERM"


@pytest.mark.control
@pytest.mark.parametrize("length", [0, 2])
def test_a_short_attribute_is_refused(gateway: Gateway, length: int) -> None:
    short = ("XFRMA_SA_EXTRA_FLAGS", bytes(length))
    refusal = refusal_of(gateway.xfrm.add, gateway.sa(xs.AF_INET, short))
    assert refusal is not None, f"extra flags of {length} bytes were accepted"
    assert refusal.errno in {errno.EINVAL, errno.ERANGE}, f"{refusal}; expected EINVAL or ERANGE"


def gives_reasons(xfrm: XfrmSocket) -> bool:
    """Tell whether this kernel's XFRM explains a refusal at all."""
    nameless = xs.Sa("10.8.0.2", "10.8.0.1", spi=1, attributes=(xa.aead(KEY, name="of no name"),))
    refusal = refusal_of(xfrm.add, nameless)
    return bool(refusal and refusal.extack)


def knows_directions(gateway: Gateway) -> bool:
    """Tell whether this kernel's SAs have a direction."""
    sa = gateway.install(xs.AF_INET, xa.sa_direction(xs.DIR_IN))
    found = gateway.xfrm.find(sa)
    gateway.xfrm.delete(sa)
    return found is not None and found.attribute("XFRMA_SA_DIR") is not None


@pytest.mark.proof(red=r"the flag was accepted for: tunnel mode, BEET mode")
def test_the_flag_is_refused_where_it_means_nothing(gateway: Gateway) -> None:
    senseless = {
        "tunnel mode": gateway.sa(xs.AF_INET, ENFORCING, mode=xs.MODE_TUNNEL),
        "BEET mode": gateway.sa(xs.AF_INET, ENFORCING, mode=xs.MODE_BEET),
    }
    # Older kernels do not look at the attribute, and do not know the mode; packet
    # offload, which came before it, they refuse for other reasons.
    if knows_directions(gateway):
        output = gateway.sa(xs.AF_INET, ENFORCING, xa.sa_direction(xs.DIR_OUT))
        senseless["output"] = replace(output, replay_window=0)
        directed = (ENFORCING, xa.sa_direction(xs.DIR_IN))
        senseless["IP-TFS"] = gateway.sa(xs.AF_INET, *directed, mode=xs.MODE_IPTFS)
        device = gateway.namespace.index(Wire.DEVICE)
        offload = xa.offload(device, OFFLOAD_INBOUND | OFFLOAD_PACKET)
        senseless["packet offload"] = gateway.sa(xs.AF_INET, *directed, offload)
    refusals = {}
    for spi, (name, sa) in enumerate(senseless.items(), start=0x2000):
        refusals[name] = refusal_of(gateway.xfrm.add, replace(sa, spi=spi))
    accepted = ", ".join(name for name, refusal in refusals.items() if refusal is None)
    assert not accepted, f"the flag was accepted for: {accepted}"
    explained = gives_reasons(gateway.xfrm)
    for name, refusal in refusals.items():
        assert refusal is not None, name
        assert refusal.errno == errno.EINVAL, f"{name}: {refusal}; expected EINVAL"
        assert "ENFORCE_POLICY" in refusal.extack or not explained, (
            f"{name}: {refusal}; expected a reason that names ENFORCE_POLICY"
        )


@pytest.mark.control
def test_packet_offload_is_refused(gateway: Gateway) -> None:
    device = gateway.namespace.index(Wire.DEVICE)
    offload = xa.offload(device, OFFLOAD_INBOUND | OFFLOAD_PACKET)
    refusal = refusal_of(gateway.xfrm.add, gateway.sa(xs.AF_INET, ENFORCING, offload))
    assert refusal is not None, "the flag was accepted with packet offload"
    assert refusal.errno == errno.EINVAL, f"{refusal}; expected EINVAL"


@contextlib.contextmanager
def simulated_device(namespace: Namespace) -> Iterator[int]:
    """Give the index of a netdevsim device, which takes SAs for crypto offload."""
    bus = Path("/sys/bus/netdevsim")
    with namespace.inside():
        before = socket.if_nameindex()
        bus.joinpath("new_device").write_text("1 1", encoding="ascii")
        made = [device for device in socket.if_nameindex() if device not in before]
    try:
        if len(made) != 1:
            raise SetUpError(f"netdevsim made {len(made)} devices")
        yield made[0][0]
    finally:
        bus.joinpath("del_device").write_text("1", encoding="ascii")


@pytest.mark.proof(red=r"port 81, crypto offload: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_crypto_offload_is_no_exemption(gateway: Gateway, family: int) -> None:
    with simulated_device(gateway.namespace) as device:
        sa = gateway.install(family, ENFORCING, xa.offload(device, OFFLOAD_INBOUND))
        gateway.xfrm.add_policy(inbound(sa, WANTED))
        found = gateway.xfrm.find(sa)
        wanted = gateway.through(sa, WANTED)
        unwanted = gateway.through(sa, UNWANTED)
        gateway.xfrm.delete(sa)
    offloaded = found is not None and found.attribute("XFRMA_OFFLOAD_DEV") is not None
    assert offloaded, "netdevsim did not take the SA"
    assert wanted == DELIVERED, f"port 80, crypto offload: {wanted}, expected delivered"
    assert unwanted == NO_POLICY, f"port 81, crypto offload: {unwanted}, expected {NO_POLICY}"


@pytest.mark.proof(red=r"port 81, crypto by cryptd: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_a_cipher_that_answers_later(gateway: Gateway, family: int) -> None:
    # Leaving it proves that the SA is freed: an instance in use cannot be removed.
    with asynchronous() as driver:
        sa = gateway.install(family, ENFORCING)
        used = in_use(driver)
        gateway.xfrm.add_policy(inbound(sa, WANTED))
        wanted = gateway.through(sa, WANTED)
        unwanted = gateway.through(sa, UNWANTED)
        gateway.xfrm.flush()
    assert used, f"the SA did not take {driver}"
    assert wanted == DELIVERED, f"port 80, crypto by cryptd: {wanted}, expected delivered"
    assert unwanted == NO_POLICY, f"port 81, crypto by cryptd: {unwanted}, expected {NO_POLICY}"


@pytest.mark.proof(red=r"port 81, flag set by iproute2: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_iproute2_sets_the_flag(gateway: Gateway, family: int) -> None:
    sa = gateway.sa(family)
    words = f"src {sa.source} dst {sa.destination} proto esp spi {sa.spi} mode transport reqid 1"
    cipher = ("aead", "rfc4106(gcm(aes))", f"0x{KEY.hex()}", "128")
    flag = ("extra-flag", f"{ENFORCE_POLICY:#x}")
    gateway.namespace.run(["ip", "xfrm", "state", "add", *words.split(), *cipher, *flag])
    seen = gateway.through(sa, UNWANTED)
    assert seen == NO_POLICY, f"port 81, flag set by iproute2: {seen}, expected {NO_POLICY}"
    shown = gateway.namespace.run(["ip", "-s", "xfrm", "state"])
    assert "extra_flag 1000000" in shown, f"iproute2 shows {shown!r}, expected extra_flag 1000000"


@pytest.mark.proof(red=r"port 81, flag set by xfrm_sa_flags: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_xfrm_sa_flags_sets_the_flag(
    gateway: Gateway, family: int, capsys: pytest.CaptureFixture[str]
) -> None:
    lifetime = xs.Lifetime(hard_add_seconds=3600)
    sa = replace(gateway.sa(family, *xa.set_mark(0x10, 0xFF)), lifetime=lifetime)
    gateway.xfrm.add(sa)
    before = gateway.xfrm.find(sa)
    with gateway.namespace.inside():
        code = main(["--destination", sa.destination, "--reqid", "1", f"{ENFORCE_POLICY:#x}"])
    said = capsys.readouterr()
    after = gateway.xfrm.find(sa)
    seen = gateway.through(sa, UNWANTED)
    assert seen == NO_POLICY, f"port 81, flag set by xfrm_sa_flags: {seen}, expected {NO_POLICY}"
    assert code == 0, f"xfrm_sa_flags ended with {code}: {said.err}"
    assert said.out.count("\n") == 1, f"xfrm_sa_flags said {said.out!r}, expected one line"
    assert before is not None, "the SA was not in the dump before"
    assert after is not None, "the SA is not in the dump after"
    kept = replace(after, attributes=tuple(slot for slot in after.attributes if slot != ENFORCING))
    assert kept == before, f"the update turned {before} into {after}"


@pytest.mark.proof(red=r"a rekeyed SA, followed by xfrm_sa_flags: delivered, expected XfrmInNoP")
def test_xfrm_sa_flags_follows(gateway: Gateway) -> None:
    sa = replace(gateway.sa(xs.AF_INET), spi=0x5678)
    with gateway.namespace.inside():
        setter = Setter(Wire.NEAR4, ENFORCE_POLICY)
    with contextlib.closing(setter), contextlib.suppress(NotTakenError):
        gateway.xfrm.add(sa)
        for _ in setter.announced(5):
            break
    seen = gateway.through(sa, UNWANTED)
    assert seen == NO_POLICY, (
        f"a rekeyed SA, followed by xfrm_sa_flags: {seen}, expected {NO_POLICY}"
    )


@dataclass(frozen=True)
class Road:
    """Two kernels: what the left one sends takes SAs that enforce policies on the right."""

    pair: Pair
    family: int
    sender: XfrmSocket
    receiver: XfrmSocket

    @property
    def ends(self) -> tuple[str, str]:
        """The left and the right address."""
        return self.pair.addresses(self.family)

    def sa(self, spi: int, reqid: int = 1) -> xs.Sa:
        """Return an ESP SA from left to right."""
        return xs.Sa(*self.ends, spi=spi, reqid=reqid, attributes=(xa.aead(KEY),))

    def lay(self, selector: xs.Selector, *sas: xs.Sa) -> None:
        """Install SAs on both sides, and the left one's policy for them: the innermost first."""
        for sa in sas:
            self.sender.add(replace(sa, flags=0))
            self.receiver.add(replace(sa, attributes=(*sa.attributes, ENFORCING)))
        first, *further = (template_of(sa) for sa in sas)
        self.sender.add_policy(xs.Policy(selector, xs.DIR_OUT, first, further=tuple(further)))

    def ask_for(self, proto: int, port: int, *templates: xs.Template) -> None:
        """Install the right one's policy for a port."""
        selector = exactly(*self.ends, proto, port)
        self.receiver.add_policy(xs.Policy(selector, xs.DIR_IN, further=templates))

    def udp(self, port: int, payload: bytes) -> str:
        """Send a datagram from left to right; return its fate."""
        with (
            self.pair.right.socket(self.family, socket.SOCK_DGRAM) as receiver,
            self.pair.left.socket(self.family, socket.SOCK_DGRAM) as sender,
        ):
            receiver.bind(("", port))
            target = (self.ends[1], port)
            return fate(
                self.pair.right,
                lambda: sender.sendto(payload, target),
                lambda: readable(receiver),
            )

    def knock(self, port: int) -> str:
        """Open a TCP connection from left to right; return the fate of its first packet."""
        with (
            self.pair.right.socket(self.family, socket.SOCK_STREAM) as listener,
            self.pair.left.socket(self.family, socket.SOCK_STREAM) as client,
        ):
            listener.bind(("", port))
            listener.listen()
            client.settimeout(0)
            target = (self.ends[1], port)
            return fate(
                self.pair.right, lambda: client.connect_ex(target), lambda: readable(listener)
            )


def template_of(sa: xs.Sa, *, optional: bool = False) -> xs.Template:
    """Return the template that asks for an SA."""
    return xs.Template(sa.source, sa.destination, proto=sa.proto, reqid=sa.reqid, optional=optional)


@pytest.fixture
def road(pair: Pair, family: int) -> Iterator[Road]:
    """Give two kernels and their XFRM sockets; ``family`` is the test's parameter."""
    with contextlib.ExitStack() as undo:
        sockets = []
        for side in (pair.left, pair.right):
            with side.inside():
                sockets.append(undo.enter_context(contextlib.closing(XfrmSocket())))
        made = Road(pair, family, *sockets)
        # Neighbours meet before there are policies; the left one's first question takes 1 s.
        with pair.right.socket(family, socket.SOCK_DGRAM) as caller:
            caller.sendto(b"hello", (made.ends[0], 9))
        yield made


@pytest.fixture
def sniffed(road: Road) -> Iterator[Callable[[], bytes]]:
    """Give a function that returns the next ESP packet on the wire to the right."""
    ethertype = 0x0800 if road.family == xs.AF_INET else 0x86DD
    with road.pair.right.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as opened:
        opened.bind((Pair.DEVICE, ethertype))

        def packet() -> bytes:
            while not is_esp(found := opened.recv(65535)):
                pass
            return found

        yield packet


@pytest.mark.proof(red=r"TCP to port 81: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_a_tcp_connection_to_an_unwanted_port(road: Road, sniffed: Callable[[], bytes]) -> None:
    sa = road.sa(0x1000)
    road.lay(exactly(*road.ends, TCP), sa)
    road.ask_for(TCP, WANTED, template_of(sa))
    seen = road.knock(WANTED)
    assert seen == DELIVERED, f"TCP to port 80: {seen}, expected delivered"
    inside = EspOracle(sa, KEY).open(sniffed())
    port = int.from_bytes(inside[22:24] if inside[0] >> 4 == 4 else inside[42:44], "big")
    assert port == WANTED, f"the ESP packet is for port {port}, expected 80"
    seen = road.knock(UNWANTED)
    assert seen == NO_POLICY, f"TCP to port 81: {seen}, expected {NO_POLICY}"


@pytest.mark.proof(red=r"ESP in UDP to port 81: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_behind_a_nat_it_is_the_same(road: Road) -> None:
    bare = road.sa(0x1000)
    sa = replace(bare, attributes=(*bare.attributes, xa.encap(NAT_T_PORT, NAT_T_PORT)))
    road.lay(exactly(*road.ends, UDP), sa)
    road.ask_for(UDP, WANTED, template_of(sa))
    with road.pair.right.socket(road.family, socket.SOCK_DGRAM) as daemon:
        daemon.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, xa.ENCAP_UDP)
        daemon.bind(("", NAT_T_PORT))
        seen = road.udp(WANTED, b"let me in")
        assert seen == DELIVERED, f"ESP in UDP to port 80: {seen}, expected delivered"
        seen = road.udp(UNWANTED, b"let me in")
        assert seen == NO_POLICY, f"ESP in UDP to port 81: {seen}, expected {NO_POLICY}"
    # What is not in UDP does not match an SA that is: the kernel would count it as such.
    found = road.receiver.find(sa)
    carried = None if found is None else found.packets
    assert carried == 2, f"the SA in UDP carried {carried} packets, expected 2"


@pytest.mark.proof(red=r"IPComp in ESP, (large|small) to port 81: delivered, expected XfrmInNoPo")
@FAMILIES
def test_ipcomp_in_esp(road: Road, sniffed: Callable[[], bytes]) -> None:
    esp = road.sa(0x1000)
    comp = replace(
        esp,
        spi=0x1000,
        proto=xs.PROTO_COMP,
        replay_window=0,
        attributes=(xa.compression("deflate"),),
    )
    road.lay(exactly(*road.ends, UDP), comp, esp)
    road.ask_for(UDP, WANTED, template_of(comp, optional=True), template_of(esp))
    # What would not shrink is sent without IPComp.
    for name, payload in (("large", bytes(500)), ("small", b"x")):
        seen = road.udp(WANTED, payload)
        assert seen == DELIVERED, f"IPComp in ESP, {name} to port 80: {seen}, expected delivered"
        inside = EspOracle(esp, KEY).open(sniffed())
        carried = inside[9] if road.family == xs.AF_INET else inside[6]
        expected = IPCOMP if name == "large" else UDP
        assert carried == expected, f"the ESP packet carries {carried}, expected {expected}"
        seen = road.udp(UNWANTED, payload)
        assert seen == NO_POLICY, f"IPComp in ESP, {name} to port 81: {seen}, expected {NO_POLICY}"
        sniffed()


@pytest.mark.proof(red=r"ESP in AH to port 81: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_esp_in_ah(road: Road) -> None:
    esp = road.sa(0x1000)
    key = xa.authentication("hmac(sha256)", AUTHENTICATION_KEY, 128)
    ah = replace(esp, proto=xs.PROTO_AH, attributes=(key,))
    road.lay(exactly(*road.ends, UDP), esp, ah)
    road.ask_for(UDP, WANTED, template_of(esp), template_of(ah))
    seen = road.udp(WANTED, b"let me in")
    assert seen == DELIVERED, f"ESP in AH to port 80: {seen}, expected delivered"
    seen = road.udp(UNWANTED, b"let me in")
    assert seen == NO_POLICY, f"ESP in AH to port 81: {seen}, expected {NO_POLICY}"


@pytest.mark.proof(red=r"a policy that asks for the (inner|outer) SA only: delivered, expected X")
@FAMILIES
@pytest.mark.parametrize("asked", ["inner", "outer"])
def test_no_sa_is_passed_over(road: Road, asked: str) -> None:
    inner, outer = road.sa(0x1000, reqid=1), road.sa(0x2000, reqid=2)
    road.lay(exactly(*road.ends, UDP), inner, outer)
    road.ask_for(UDP, UNWANTED, template_of(inner if asked == "inner" else outer))
    road.ask_for(UDP, WANTED, template_of(inner), template_of(outer))
    seen = road.udp(WANTED, b"let me in")
    assert seen == DELIVERED, f"a policy that asks for both SAs: {seen}, expected delivered"
    seen = road.udp(UNWANTED, b"let me in")
    assert seen == PASSED_OVER, (
        f"a policy that asks for the {asked} SA only: {seen}, expected {PASSED_OVER}"
    )


def refused_from(road: Road, port: int, *, flags: int) -> str:
    """Let the right one hear from the left, through the SA, that a port is closed.

    Its datagram leaves ``port`` in clear; policies are for UDP to port 80.
    """
    sa = replace(road.sa(0x1000), flags=flags)
    unreachable = (1, 3) if road.family == xs.AF_INET else (58, 1)
    proto, kind = unreachable
    road.lay(replace(exactly(*road.ends, proto), source_port=kind), sa)
    road.ask_for(UDP, WANTED, template_of(sa))
    with road.pair.right.socket(road.family, socket.SOCK_DGRAM) as sender:
        sender.bind(("", port))
        sender.connect((road.ends[0], 9))
        return fate(
            road.pair.right,
            lambda: sender.send(b"anybody there?"),
            lambda: sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED,
            # With the flag icmp_rcv() looks twice: for the error, and in reverse for its flow.
            counts=2 if flags & xs.STATE_ICMP else 1,
        )


@pytest.mark.proof(red=r"an ICMP error through the SA: delivered, expected XfrmInNoPols\+1$")
@FAMILIES
def test_an_icmp_error_needs_a_policy(road: Road) -> None:
    seen = refused_from(road, WANTED, flags=0)
    assert seen == NO_POLICY, f"an ICMP error through the SA: {seen}, expected {NO_POLICY}"


@pytest.mark.proof(red=r"an ICMP error about an unwanted flow: delivered, expected XfrmInNoPols")
@FAMILIES
def test_an_icmp_error_about_an_unwanted_flow(road: Road) -> None:
    seen = refused_from(road, UNWANTED, flags=xs.STATE_ICMP)
    twice = "XfrmInNoPols+2"
    assert seen == twice, f"an ICMP error about an unwanted flow: {seen}, expected {twice}"


@pytest.mark.control
@FAMILIES
def test_an_icmp_error_about_a_wanted_flow(road: Road) -> None:
    seen = refused_from(road, WANTED, flags=xs.STATE_ICMP)
    assert DELIVERED in seen, f"an ICMP error about a wanted flow: {seen}, expected delivered"


@pytest.mark.control
def test_nothing_holds_the_namespace() -> None:
    with veth_pair() as pair:
        with pair.right.inside():
            receiver = XfrmSocket()
        with pair.left.inside():
            sender = XfrmSocket()
        road = Road(pair, xs.AF_INET, sender, receiver)
        road.lay(exactly(*road.ends, UDP), road.sa(0x1000))
        road.udp(UNWANTED, b"let me in")
        sender.close()
        receiver.close()
        pair.right.close()

        def gone() -> bool:
            with pair.left.inside():
                return Pair.DEVICE not in [name for _, name in socket.if_nameindex()]

        assert wait_until(gone, seconds=10), "the namespace of the SA still exists after 10 s"
