# SPDX-License-Identifier: GPL-2.0-only
"""E5: an address with IFA_F_NOSRCSEL is a source only for those who name it.

The set-up is a road warrior's: a link-local address, a virtual /128 with
preferred_lft 0 from a gateway, a default route, and a route into the prefix
behind the gateway that names the virtual address as its source.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

import xfrm_messages as xm
import xfrm_structures as xs
from callers import without_net_admin, write_as_32_bits
from namespaces import Namespace, Pair, goes_away, veth_pair, wait_until
from netlink_frames import NetlinkRefusedError
from rtnl_address import (
    IFA_F_DEPRECATED,
    IFA_F_NODAD,
    IFA_F_NOSRCSEL,
    IFA_F_PERMANENT,
    Address,
    AddressSocket,
    replace_request,
)
from xfrm_netlink import XfrmSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

VIRTUAL = "fd77::5"
BEHIND_GATEWAY = "fd80::1"
ELSEWHERE = "fd99::1"
PORT = 4242
MASQUERADE = """
table ip6 t {
  chain c {
    type nat hook postrouting priority 100
    masquerade
  }
}
"""


@dataclass(frozen=True)
class Road:
    """The road warrior's namespace, what is on the other end, and its addresses."""

    warrior: Namespace
    gateway: Namespace
    addresses: AddressSocket
    virtual: Address

    @property
    def link_local(self) -> str:
        """The veth's link-local address, "" while it has none."""
        return self.addresses.link_local(self.virtual.index)

    def source_to(self, destination: str, *, device: str = "") -> str:
        """Return the source address connect() takes for a destination."""
        with self.warrior.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            if device:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            index = self.virtual.index if destination.startswith("ff") else 0
            probe.connect((destination, PORT, 0, index))
            return str(probe.getsockname()[0]).partition("%")[0]

    def link_local_is_back(self) -> None:
        """Wait until the veth has its link-local address (again)."""
        index = self.virtual.index
        back = wait_until(lambda: bool(self.addresses.link_local(index)), seconds=10)
        assert back, "the veth got no link-local address within 10 s"


@pytest.fixture
def road() -> Iterator[Road]:
    """Set up the road warrior, its virtual address excluded from selection."""
    with veth_pair(left_has_addresses=False) as pair, contextlib.ExitStack() as undo:
        pair.right.ip(
            f"addr add {ELSEWHERE}/128 dev lo",
            f"addr add {BEHIND_GATEWAY}/128 dev lo",
            f"route add {VIRTUAL}/128 dev {pair.DEVICE}",
        )
        with pair.left.inside():
            addresses = AddressSocket()
        undo.callback(addresses.close)
        index = pair.left.index(pair.DEVICE)
        flags = IFA_F_NODAD | IFA_F_NOSRCSEL
        virtual = Address(VIRTUAL, index, flags=flags, preferred=0)
        addresses.replace(virtual)
        pair.left.ip(
            f"route add default via {pair.RIGHT6} dev {pair.DEVICE} onlink",
            f"route add fd80::/64 via {pair.RIGHT6} dev {pair.DEVICE} onlink src {VIRTUAL}",
        )
        made = Road(pair.left, pair.right, addresses, virtual)
        made.link_local_is_back()
        yield made


@pytest.mark.proof(red=r"connect\(\) to \S+ took the virtual address fd77::5 as its source$")
@pytest.mark.parametrize("destination", [ELSEWHERE, "ff05::99"], ids=["unicast", "multicast"])
def test_connect_elsewhere_avoids_the_virtual_address(road: Road, destination: str) -> None:
    source = road.source_to(destination)
    assert source != VIRTUAL, (
        f"connect() to {destination} took the virtual address {source} as its source"
    )
    assert source == road.link_local, f"connect() to {destination} took {source}"


@pytest.mark.control
def test_connect_into_the_prefix_takes_the_virtual_address(road: Road) -> None:
    source = road.source_to(BEHIND_GATEWAY)
    assert source == VIRTUAL, f"connect() to a prefix routed with src {VIRTUAL} took {source}"


@pytest.mark.control
def test_without_the_flag_the_virtual_address_is_taken(road: Road) -> None:
    road.addresses.replace(replace(road.virtual, flags=IFA_F_NODAD))
    source = road.source_to(ELSEWHERE)
    assert source == VIRTUAL, f"connect() took {source}: nothing here would be worth excluding"


@pytest.mark.proof(red=r"the dump shows the flags 0x[0-9a-f]+, without IFA_F_NOSRCSEL$")
def test_a_dump_shows_the_flag(road: Road) -> None:
    found = road.addresses.find(VIRTUAL)
    assert found is not None, f"no {VIRTUAL} in the dump"
    assert found.flags & IFA_F_NOSRCSEL, (
        f"the dump shows the flags {found.flags:#x}, without IFA_F_NOSRCSEL"
    )
    assert found.flags & IFA_F_DEPRECATED, f"preferred_lft 0 left the flags at {found.flags:#x}"


@pytest.mark.proof(red=r"RTM_NEWADDR with the flag left the flags at 0x[0-9a-f]+$")
def test_replace_sets_the_flag(road: Road) -> None:
    road.addresses.replace(replace(road.virtual, flags=IFA_F_NODAD))
    road.addresses.replace(road.virtual)
    found = road.addresses.find(VIRTUAL)
    flags = 0 if found is None else found.flags
    assert flags & IFA_F_NOSRCSEL, f"RTM_NEWADDR with the flag left the flags at {flags:#x}"
    source = road.source_to(ELSEWHERE)
    assert source != VIRTUAL, f"connect() took {VIRTUAL} after a replace that set the flag"


@pytest.mark.proof(red=r"there was no IFA_F_NOSRCSEL to clear, the flags were 0x[0-9a-f]+$")
def test_replace_clears_the_flag(road: Road) -> None:
    before = road.addresses.find(VIRTUAL)
    flags = 0 if before is None else before.flags
    assert flags & IFA_F_NOSRCSEL, (
        f"there was no IFA_F_NOSRCSEL to clear, the flags were {flags:#x}"
    )
    road.addresses.replace(replace(road.virtual, flags=IFA_F_NODAD))
    found = road.addresses.find(VIRTUAL)
    flags = 0 if found is None else found.flags
    assert not flags & IFA_F_NOSRCSEL, f"RTM_NEWADDR without the flag left the flags at {flags:#x}"
    source = road.source_to(ELSEWHERE)
    assert source == VIRTUAL, f"connect() took {source} after a replace that cleared the flag"


@pytest.mark.proof(red=r"an IPv4 address shows the flag, which does nothing: 0x100080$")
def test_an_ipv4_address_does_not_keep_the_flag(road: Road) -> None:
    address = "10.77.0.5"
    flags = IFA_F_NODAD | IFA_F_NOSRCSEL
    road.addresses.replace(Address(address, road.virtual.index, prefix=32, flags=flags))
    found = road.addresses.find(address)
    shown = 0 if found is None else found.flags
    assert not shown & IFA_F_NOSRCSEL, (
        f"an IPv4 address shows the flag, which does nothing: {shown:#x}"
    )
    # As any other flag that means something to IPv6 only.
    assert shown == IFA_F_PERMANENT, f"an IPv4 address has the flags {shown:#x}, expected 0x80"
    road.warrior.ip("route add 10.99.0.0/16 dev veth")
    with road.warrior.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("10.99.0.1", PORT))
        source = probe.getsockname()[0]
    assert source == address, f"connect() took {source}, not the only IPv4 address {address}"


@pytest.mark.control
def test_bind_to_the_virtual_address_works(road: Road) -> None:
    server = road.gateway.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    client = road.warrior.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with server, client:
        server.bind((ELSEWHERE, PORT))
        client.bind((VIRTUAL, 0))
        client.sendto(b"from the virtual address", (ELSEWHERE, PORT))
        source = server.recvfrom(100)[1][0]
    assert source == VIRTUAL, f"a socket bound to {VIRTUAL} sent from {source}"


@pytest.mark.control
def test_the_virtual_address_is_reached_from_its_own_host(road: Road) -> None:
    server = road.warrior.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    client = road.warrior.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with server, client:
        server.bind((VIRTUAL, PORT))
        # The source may be another address of the host: excluded is excluded.
        client.connect((VIRTUAL, PORT))
        client.send(b"there")
        request, source = server.recvfrom(100)
        server.sendto(b"and back", source)
        reply = client.recv(100)
    assert (request, reply) == (b"there", b"and back"), (
        f"between the host and its own {VIRTUAL} went {request!r} and {reply!r}"
    )


@pytest.mark.control
def test_traffic_to_the_virtual_address_is_answered_from_it(road: Road) -> None:
    server = road.warrior.socket(socket.AF_INET6, socket.SOCK_STREAM)
    client = road.gateway.socket(socket.AF_INET6, socket.SOCK_STREAM)
    with server, client:
        server.bind(("::", PORT))
        server.listen()
        client.bind((BEHIND_GATEWAY, 0))
        client.connect((VIRTUAL, PORT))
        accepted, _ = server.accept()
        with accepted:
            local = accepted.getsockname()[0]
    assert local == VIRTUAL, f"a connection to {VIRTUAL} was accepted at {local}"


@pytest.mark.proof(red=r"with no other address connect\(\) took the virtual fd77::5$")
def test_no_other_address_is_no_reason_to_take_it(road: Road) -> None:
    road.warrior.ip(f"addr del {road.link_local}/64 dev veth")
    source = "none"
    with contextlib.suppress(OSError):
        source = road.source_to(ELSEWHERE)
    assert source != VIRTUAL, f"with no other address connect() took the virtual {source}"


@pytest.mark.proof(red=r"in a VRF connect\(\) took the virtual address fd77::5 as its source$")
@pytest.mark.parametrize("owner", ["veth", "vrf9"], ids=["on-the-slave", "on-the-vrf"])
def test_in_a_vrf_it_is_avoided_too(road: Road, owner: str) -> None:
    road.warrior.ip(
        f"addr del {VIRTUAL}/128 dev veth",
        "link add vrf9 type vrf table 9",
        "link set vrf9 up",
        "link set veth master vrf9",
    )
    # Enslaving takes the device down and up, and with it its IPv6 addresses.
    road.link_local_is_back()
    index = road.warrior.index(owner)
    road.addresses.replace(replace(road.virtual, index=index))
    road.warrior.ip(f"route add default via {Pair.RIGHT6} dev veth onlink table 9")
    source = road.source_to(ELSEWHERE, device="vrf9")
    assert source != VIRTUAL, f"in a VRF connect() took the virtual address {source} as its source"
    assert source == road.link_local, f"in a VRF connect() took {source}"


@pytest.mark.proof(red=r"masquerade took the virtual address fd77::5 as the source$")
def test_masquerade_avoids_it(road: Road) -> None:
    road.warrior.run(
        ["nft", "-f", "-"],
        text=MASQUERADE,
    )
    server = road.gateway.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    client = road.warrior.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with server, client:
        server.bind((ELSEWHERE, PORT))
        client.bind((VIRTUAL, 0))
        client.sendto(b"to be masqueraded", (ELSEWHERE, PORT))
        source = server.recvfrom(100)[1][0].partition("%")[0]
    assert source != VIRTUAL, f"masquerade took the virtual address {source} as the source"
    assert source == road.link_local, f"masquerade took {source}, expected {road.link_local}"


@pytest.mark.proof(red=r"an XFRM tunnel from :: took the virtual address fd77::5 as its end$")
def test_an_xfrm_tunnel_from_anywhere_avoids_it(road: Road) -> None:
    with road.warrior.inside():
        xfrm = XfrmSocket(groups=(xm.GROUP_ACQUIRE,))
    template = xs.Template("::", ELSEWHERE, mode=xs.MODE_TUNNEL)
    selector = xs.Selector("::/0", "fd98::/64")
    xfrm.add_policy(xs.Policy(selector, xs.DIR_OUT, template))
    probe = road.warrior.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with contextlib.closing(xfrm), probe:
        with contextlib.suppress(OSError):
            probe.sendto(b"caught", ("fd98::1", PORT))
        acquire = xfrm.next_acquire(5)
    assert acquire is not None, "traffic into an XFRM tunnel from :: made no ACQUIRE within 5 s"
    end = acquire.source
    assert end != VIRTUAL, f"an XFRM tunnel from :: took the virtual address {end} as its end"
    assert end == road.link_local, f"an XFRM tunnel from :: took {end}"


@pytest.mark.proof(red=r"'ip route get' says the source is the virtual address fd77::5$")
def test_iproute2_is_told_another_source(road: Road) -> None:
    words = road.warrior.run(["ip", "-6", "route", "get", ELSEWHERE]).split()
    source = words[words.index("src") + 1] if "src" in words else "none"
    assert source != VIRTUAL, f"'ip route get' says the source is the virtual address {source}"
    assert source == road.link_local, f"'ip route get' says the source is {source}"


@pytest.mark.proof(red=r"'ip addr show' has no word of the flag: .*$")
def test_iproute2_shows_the_flag_as_a_number(road: Road) -> None:
    shown = road.warrior.run(["ip", "-6", "-o", "addr", "show", "to", VIRTUAL])
    assert "flags 100000" in shown, f"'ip addr show' has no word of the flag: {shown.strip()}"


@pytest.mark.control
def test_pktinfo_naming_it_gets_it(road: Road) -> None:
    server = road.gateway.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    client = road.warrior.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    named = ipaddress.IPv6Address(VIRTUAL).packed + struct.pack("=I", 0)
    with server, client:
        server.bind((ELSEWHERE, PORT))
        ancillary = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, named)]
        client.sendmsg([b"from there"], ancillary, 0, (ELSEWHERE, PORT))
        source = server.recvfrom(100)[1][0]
    assert source == VIRTUAL, f"IPV6_PKTINFO with {VIRTUAL} sent from {source}"


@pytest.mark.proof(red=r"the flag a 32-bit caller set is not there, the flags are 0x[0-9a-f]+$")
def test_a_32_bit_caller_sets_it(road: Road) -> None:
    road.addresses.replace(replace(road.virtual, flags=IFA_F_NODAD))
    request = replace_request(road.virtual, sequence=0x32)
    write_as_32_bits(road.addresses.fileno(), request)
    road.addresses.replies("RTM_NEWADDR of 32 bits", 0x32)
    found = road.addresses.find(VIRTUAL)
    flags = 0 if found is None else found.flags
    assert flags & IFA_F_NOSRCSEL, (
        f"the flag a 32-bit caller set is not there, the flags are {flags:#x}"
    )


@pytest.mark.control
def test_flags_of_two_bytes_are_refused(road: Road) -> None:
    request = bytearray(replace_request(road.virtual, sequence=2))
    # IFA_FLAGS comes last: its header says four bytes less, of which two are padding.
    request[-8:] = struct.pack("=HHHxx", 6, 8, 0)
    os.write(road.addresses.fileno(), request)
    with pytest.raises(NetlinkRefusedError) as refusal:
        road.addresses.replies("RTM_NEWADDR with a short IFA_FLAGS", 2)
    assert refusal.value.errno in {errno.EINVAL, errno.ERANGE}, (
        f"{refusal.value}; expected EINVAL or ERANGE"
    )


@pytest.mark.control
def test_it_takes_cap_net_admin(road: Road) -> None:
    with without_net_admin(), pytest.raises(NetlinkRefusedError) as refusal:
        road.addresses.replace(road.virtual)
    assert refusal.value.errno == errno.EPERM, f"{refusal.value}; expected EPERM"


@pytest.mark.control
def test_the_same_address_elsewhere_is_not_touched(road: Road, other_netns: Namespace) -> None:
    other_netns.ip(
        "link add there type dummy",
        "link set there up",
        f"addr add {VIRTUAL}/128 dev there nodad",
        "route add ::/0 dev there",
    )
    with other_netns.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.connect((ELSEWHERE, PORT))
        source = probe.getsockname()[0]
    assert source == VIRTUAL, f"in another namespace connect() took {source}, not its {VIRTUAL}"
    assert road.addresses.find(VIRTUAL) is not None, "the flagged address is gone"


@pytest.mark.control
def test_a_namespace_goes_away_with_it(other_netns: Namespace) -> None:
    other_netns.ip("link add there type dummy", "link set there up")
    index = other_netns.index("there")
    with other_netns.inside(), contextlib.closing(AddressSocket()) as addresses:
        addresses.replace(Address(VIRTUAL, index, flags=IFA_F_NODAD | IFA_F_NOSRCSEL))
    assert goes_away(other_netns), "a namespace with the address was there 20 s after its end"
