# SPDX-License-Identifier: GPL-2.0-only
"""strongSwan's own HA cases as tests, for whatever divides the traffic.

An extension's test file has a class for each, which says what the Division is.
What strongSwan's suite looks at is looked at here: the states of the SAs, the
segments, what charon logs, pings, and ESP on the wire. Then comes what it does
not look at: each single packet of a failover.
"""

from __future__ import annotations

import contextlib
import platform
import re
import socket
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from ha_gateways import (
    ACTIVE_PASSIVE,
    BOTH_ACTIVE,
    HEARTBEAT_TIMEOUT,
    Case,
    Cluster,
    Division,
    cluster,
    numbers,
    plugin_segments,
)
from ha_network import GATEWAYS, IPV6, OUT, PEERS
from ha_traffic import FLOWS, Traffic, delivered, esp_of, repeated, traffic, way_of
from namespaces import SetUpError, wait_until
from segment_hash import jhash_2words, segment_of, source_segment

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xfrm_structures as xs
    from ha_network import Packet

RED = r"the kernel refuses the rules of the cluster: "
#: A window of 32, and what a node that only verifies may lag behind.
ENOUGH = 50
#: The issue's: the heartbeat's timeout and a second.
MOST_SECONDS = HEARTBEAT_TIMEOUT + 1

IKE_SA = (
    r"version=2 state={state} local-host={shared} local-port=4500 "
    r"local-id=mars\.strongswan\.org remote-host={peer} remote-port=4500 "
    r"remote-id={name}@strongswan\.org.*"
    r"encr-alg=AES_CBC encr-keysize=128 integ-alg=HMAC_SHA2_256_128 "
    r"prf-alg=PRF_HMAC_SHA2_256 dh-group=CURVE_25519.*child-sas.*net.*"
    r"state=INSTALLED mode=TUNNEL protocol=ESP.*encr-alg=AES_GCM_16 encr-keysize=128.*"
    r"local-ts=\[{protected}\] remote-ts=\[{peer}/{host}\]"
)
PEERS_SA = (
    r"home.*version=2 state=ESTABLISHED local-host={peer} local-port=4500 "
    r"local-id={name}@strongswan\.org remote-host={shared} remote-port=4500 "
    r"remote-id=mars\.strongswan\.org initiator=yes.*child-sas.*home.*"
    r"state=INSTALLED mode=TUNNEL.*ESP.*encr-alg=AES_GCM_16 encr-keysize=128.*"
    r"local-ts=\[{peer}/{host}\] remote-ts=\[{protected}\]"
)

each_peer = pytest.mark.parametrize("peer", PEERS)
proof = pytest.mark.proof(red=RED)
slow = pytest.mark.deadline(150)


def running(made: Cluster) -> Cluster:
    """Return the cluster; without the extension there is none."""
    assert not made.refused, f"the kernel refuses the rules of the cluster: {made.refused}"
    return made


def ends(made: Cluster, peer: str) -> dict[str, str]:
    """Return what the patterns above want to know of a peer's tunnel."""
    at = made.at
    about = {"peer": at.outside[peer], "shared": at.virtual, "protected": at.protected}
    about |= {"name": peer, "host": str(at.host)}
    return {key: re.escape(value) for key, value in about.items()}


def expect_state(made: Cluster, gateway: str, peer: str, state: str) -> None:
    """Assert what the suite does of one IKE_SA of a gateway."""
    wanted = IKE_SA.format(state=state, **ends(made, peer))
    found = [each for each in made.sas(gateway) if f"remote-id={peer}@" in each]
    assert len(found) == 1, f"{gateway} has {len(found)} IKE_SAs with {peer}, expected one"
    assert re.search(wanted, found[0], re.DOTALL), (
        f"{gateway} has {found[0]!r} with {peer}, expected state={state} and /{wanted}/"
    )


def expect_ping(made: Cluster, peer: str) -> None:
    """Assert that a peer reaches venus with one echo request."""
    venus = made.at.inside["venus"]
    ping = ["ping", "-n", "-c", "1", "-W", "5", venus]
    with contextlib.suppress(SetUpError):
        said = made.net.hosts[peer].run(ping)
        assert f"64 bytes from {venus}: icmp_seq=1" in said, f"ping said {said!r}"
        return
    raise AssertionError(f"{peer}'s ping to venus came back without an answer; {made.said()}")


def expect_owners_sent(made: Cluster, packets: list[Packet]) -> None:
    """Assert that the ESP to peers came from the gateway that has the SA's segment."""
    ways = states_by_way(made, "alice")
    for packet in esp_of(packets, *GATEWAYS):
        sa = ways[(packet.source, packet.destination)]
        owner = made.case.owner(made.segment(sa))
        assert packet.host == owner, (
            f"{packet.host} sent number {packet.esp} to {packet.destination}, which is {owner}'s"
        )


def states_by_way(made: Cluster, gateway: str) -> dict[tuple[str, str], xs.Sa]:
    """Return a gateway's SAs by source and destination."""
    return {(sa.source, sa.destination): sa for sa in made.states(gateway)}


def inject(made: Cluster, peer: str, packets: list[Packet]) -> None:
    """Send packets once more as they were, from a peer's cable."""
    host = made.net.hosts[peer]
    with host.inside(), contextlib.closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as raw:
        raw.bind((OUT, 0))
        for packet in packets:
            raw.send(packet.frame)


@dataclass(frozen=True)
class Failover:
    """What was seen of a failover: ``packets`` is all that hosts sent, in order.

    ``resumed`` is when, by flow, the first datagram sent after the kill came;
    ``taken`` when the other gateway had all segments.
    """

    begun: float
    killed: float
    taken: float
    resumed: dict[str, float]
    packets: list[Packet]


def fail_over(made: Cluster, flow: Traffic, victim: str) -> Failover:
    """Kill a gateway in the middle of traffic, until there was enough of it after."""
    survivor = next(name for name in GATEWAYS if name != victim)
    everything = ",".join(str(n + 1) for n in range(made.case.segments))
    begun = time.time()
    assert flow.exchange(ENOUGH), f"no traffic before the failover; {made.said()}"
    killed = made.kill(victim)
    taken = 0.0

    def over() -> bool:
        nonlocal taken
        made.net.tap.look()
        if not taken and made.owns(survivor, everything):
            taken = time.time()
        return all(len(flow.arrived(each, after=killed)) >= ENOUGH for each in FLOWS)

    flow.run(over, seconds=20)
    came = {each: flow.arrived(each, after=killed) for each in FLOWS}
    resumed = {name: min(each.arrived or 0 for each in sent) for name, sent in came.items() if sent}
    if taken and resumed:
        # Seen once in a round of datagrams: the first that came through may have been earlier.
        taken = min(taken, max(resumed.values()))
    return Failover(begun, killed, taken, resumed, list(made.net.tap.look()))


def expect_resumed(made: Cluster, failover: Failover) -> None:
    """Assert that all traffic is back in time, and that moon says why."""
    for name in FLOWS:
        took = failover.resumed.get(name, failover.killed + 99) - failover.killed
        assert took <= MOST_SECONDS, (
            f"{name} resumed {took:.2f} s after the kill, "
            f"expected at most {MOST_SECONDS:.1f} s; {made.said()}"
        )
    said = "no heartbeat received, taking all segments" in made.charons["moon"].log()
    assert said, f"moon did not log that it takes all segments; {made.said()}"


def expect_refused(made: Cluster, failover: Failover, peer: str) -> None:
    """Assert that moon, who took over, refuses what a peer sent before."""
    old = [each for each in esp_of(failover.packets, peer) if each.at < failover.killed]
    assert len(old) >= ENOUGH, f"{len(old)} packets of {peer} were captured before the kill"
    made.net.tap.forget()
    before = made.replays("moon")
    inject(made, peer, old)
    # What is sent after them comes after them.
    expect_ping(made, peer)
    refused = made.replays("moon") - before
    came = [said for said, _ in delivered(made.net.tap.look())]
    assert not came, f"{len(came)} of {len(old)} replayed packets reached venus: {came[:5]}"
    assert refused == len(old), (
        f"moon's XfrmInStateSeqError counts {refused} for {len(old)} replayed packets"
    )


def expect_rekey(made: Cluster, gateway: str, peer: str) -> None:
    """Assert that a peer gets new SAs from a gateway."""
    expect_state(made, gateway, peer, "ESTABLISHED")
    way = (made.at.outside[peer], made.at.virtual)
    old = states_by_way(made, gateway)[way].spi
    made.charons[peer].rekey("home")

    def rekeyed() -> bool:
        new = [sa for sa in made.states(gateway) if (sa.source, sa.destination) == way]
        return len(new) == 1 and new[0].spi != old

    assert wait_until(rekeyed, seconds=20), f"{peer}'s SA {old:08x} was not replaced; {made.said()}"
    expect_ping(made, peer)


def expect_no_number_twice(made: Cluster) -> None:
    """Assert that no gateway has sent a number again, since all began.

    The SPIs are out of a few. One that two SAs had, one after the other, is left out.
    """
    sent = [
        each
        for each in esp_of(made.net.tap.everything, *GATEWAYS)
        if each.esp and len(made.keys.get((each.destination, each.esp[0]), ())) < 2
    ]
    double = repeated(sent)
    assert not double, f"of {len(sent)} packets the gateways sent more than once: {double[:5]}"


@dataclass(frozen=True)
class Revived:
    """A cluster whose dead gateway is back; ``old`` are those of its SAs that it had before.

    The SPIs are out of a few and come again: it is the key that is old.
    """

    made: Cluster
    old: set[tuple[int, bytes]]


def revive(made: Cluster, **segments: str) -> Revived:
    """Let alice come back, wait for new SAs, and let her take segment 1 again."""
    before = made.keyed("moon")
    made.net.tap.forget()
    made.revive("alice")
    wait_until(lambda: not before & made.keyed("alice"), seconds=20)
    old = before & made.keyed("alice")
    made.share(("alice", 1), **segments)
    return Revived(made, old)


def expect_new_sas(revived: Revived) -> None:
    """Assert that no SA is as it was: the numbers of alice, who was away, are behind."""
    said = [f"{spi:08x}" for spi, _ in revived.old]
    assert not said, (
        f"alice got the SAs {said} again, expected all to be rekeyed; {revived.made.said()}"
    )


def as_record(made: Cluster, flow: Traffic, seen: Failover) -> dict[str, Any]:
    """Return a failover for docs/draw_failover.py; all times are seconds from its begin."""

    def since(at: float) -> float:
        return round(at - seen.begun, 4)

    ways = states_by_way(made, "moon")
    return {
        "kernel": platform.release(),
        "killed": since(seen.killed),
        "taken": since(seen.taken),
        "resumed": {name: since(at) for name, at in seen.resumed.items()},
        "flows": {
            name: {
                "segment": made.segment(ways[way_of(name, made.at)]),
                # Each datagram: when it was sent, its number, and whether it came.
                "sent": [
                    (since(each.at), each.number, each.arrived is not None)
                    for each in flow.sent[name]
                    if each.at >= seen.begun
                ],
                # Each ESP packet on the wire: when, by whom, and its sequence number.
                "esp": [
                    (since(each.at), each.host, each.esp[1])
                    for each in seen.packets
                    if each.esp and (each.source, each.destination) == way_of(name, made.at)
                ],
                # Each datagram passed on to venus: when, by whom, and its number.
                "delivered": [
                    (since(each.at), each.host, int(said.split()[1]))
                    for said, each in delivered(seen.packets)
                    if said.startswith(f"{name} ")
                ],
            }
            for name in FLOWS
        },
    }


class HaCase:
    """What both cases have: a cluster for the class, and traffic through it."""

    case: ClassVar[Case]
    division: ClassVar[Division]

    @pytest.fixture(scope="class")
    def made(self, request: pytest.FixtureRequest) -> Iterator[Cluster]:
        with cluster(request.cls.case, request.cls.division) as made:
            yield made

    @pytest.fixture(scope="class")
    def flow(self, made: Cluster) -> Iterator[Traffic]:
        with traffic(made) as flow:
            yield flow

    @pytest.fixture(scope="class")
    def failover(self, made: Cluster, flow: Traffic) -> Failover | None:
        if made.refused:
            return None
        made.net.tap.forget()
        return fail_over(made, flow, "alice")


class BothActive(HaCase):
    """ha/both-active: each gateway has one of two segments; then alice dies and comes back."""

    case = BOTH_ACTIVE

    @proof
    @slow
    def test_each_gateway_has_a_segment(self, made: Cluster) -> None:
        made = running(made)
        for name, segment in (("alice", "1"), ("moon", "2")):
            owned = made.owned(name)
            assert made.owns(name, segment), f"{name} has {owned}, expected {segment}"
            said = f"HA segment {segment} activated" in made.charons[name].log()
            assert said, f"{name} did not log that segment {segment} was activated"

    @proof
    @each_peer
    def test_an_ike_sa_is_established_on_one_gateway_and_passive_on_the_other(
        self, made: Cluster, peer: str
    ) -> None:
        made = running(made)
        segment = source_segment(made.at.outside[peer], 2)
        assert segment == {"carol": 2, "dave": 1}[peer], f"{peer} is of segment {segment}"
        owner = made.case.owner(segment)
        for gateway in GATEWAYS:
            state = "ESTABLISHED" if gateway == owner else "PASSIVE"
            expect_state(made, gateway, peer, state)
        wanted = PEERS_SA.format(**ends(made, peer))
        found = made.sas(peer)
        assert len(found) == 1, f"{peer} has {len(found)} IKE_SAs, expected one"
        assert re.search(wanted, found[0], re.DOTALL), f"{peer} has {found[0]!r}, not /{wanted}/"

    @proof
    def test_the_plugin_and_the_model_agree_on_the_segments(self, made: Cluster) -> None:
        made = running(made)
        shared = made.at.virtual
        for gateway in GATEWAYS:
            ways = states_by_way(made, gateway)
            model = {
                (peer, *(made.segment(ways[way]) for way in ((peer, shared), (shared, peer))))
                for peer in (made.at.outside[name] for name in PEERS)
            }
            said = plugin_segments(made.charons[gateway].log())
            assert said == model, f"{gateway} says {said} of its CHILD_SAs, the model {model}"
        for gateway in GATEWAYS:
            log = made.charons[gateway].log()
            for wanted in ("handling HA CHILD_SA", "installed HA CHILD_SA"):
                assert wanted in log, f"{gateway} did not log {wanted!r}; {made.said()}"

    @proof
    @each_peer
    def test_a_ping_is_esp_on_the_wire_both_ways(self, made: Cluster, peer: str) -> None:
        made = running(made)
        made.net.tap.forget()
        expect_ping(made, peer)
        ways = [(each.source, each.destination) for each in esp_of(made.net.tap.look(), *GATEWAYS)]
        assert ways == [(made.at.virtual, made.at.outside[peer])], (
            f"the gateways sent ESP {ways}, expected one"
        )
        ways = [(each.source, each.destination) for each in esp_of(made.net.tap.look(), peer)]
        assert ways == [(made.at.outside[peer], made.at.virtual)], (
            f"{peer} sent ESP {ways}, expected one"
        )

    @proof
    @slow
    def test_each_packet_is_handled_by_the_gateway_of_its_segment(
        self, made: Cluster, flow: Traffic
    ) -> None:
        made = running(made)
        made.net.tap.forget()
        assert flow.exchange(ENOUGH), f"the traffic does not come through; {made.said()}"
        packets = made.net.tap.look()
        expect_owners_sent(made, packets)
        double = repeated(packets)
        assert not double, f"sent more than once: {double[:5]}"
        came = Counter(said for said, _ in delivered(packets))
        twice = [said for said, times in came.items() if times > 1]
        assert not twice, f"both gateways delivered {twice[:5]} to venus"
        ways = states_by_way(made, "alice")
        for said, packet in delivered(packets):
            owner = made.case.owner(made.segment(ways[way_of(said.split()[0], made.at)]))
            assert packet.host == owner, f"{packet.host} delivered {said!r}, which is {owner}'s"

    @proof
    @slow
    def test_the_gateway_that_drops_keeps_up_with_the_numbers(
        self, made: Cluster, flow: Traffic
    ) -> None:
        made = running(made)
        assert flow.exchange(ENOUGH), f"the traffic does not come through; {made.said()}"
        alice, moon = (states_by_way(made, name) for name in GATEWAYS)
        for way, sa in alice.items():
            owner, other = (sa, moon[way]) if made.segment(sa) == 1 else (moon[way], sa)
            (sent, seen), (also_sent, also_seen) = numbers(owner), numbers(other)
            assert sent == also_sent, (
                f"the owner of {sa.spi:08x} has sent {sent}, the other counts {also_sent}"
            )
            assert seen - 16 < also_seen <= seen, (
                f"the owner of {sa.spi:08x} has seen {seen}, the other {also_seen}, over 15 behind"
            )

    @proof
    @slow
    def test_traffic_resumes_when_a_gateway_is_killed(
        self, made: Cluster, flow: Traffic, failover: Failover, request: pytest.FixtureRequest
    ) -> None:
        made = running(made)
        request.node.user_properties.append(("failover", as_record(made, flow, failover)))
        expect_resumed(made, failover)
        assert made.owns("moon", "1,2"), f"moon has {made.owned('moon')}, expected 1,2"

    @proof
    def test_no_number_repeats_in_the_failover(self, made: Cluster, failover: Failover) -> None:
        running(made)
        double = repeated(failover.packets)
        assert not double, f"sent more than once: {double[:5]}"
        senders: dict[str, set[str]] = {}
        for each in esp_of(failover.packets, *GATEWAYS):
            senders.setdefault(each.destination, set()).add(each.host)
        wanted = {made.at.outside["carol"]: {"moon"}, made.at.outside["dave"]: set(GATEWAYS)}
        assert senders == wanted, f"ESP was sent by {senders}, expected {wanted}"

    @proof
    def test_what_was_the_other_gateways_never_stops(
        self, made: Cluster, flow: Traffic, failover: Failover
    ) -> None:
        made = running(made)
        ways = states_by_way(made, "moon")
        others = [name for name in FLOWS if made.segment(ways[way_of(name, made.at)]) == 2]
        assert others == ["venus-carol", "dave-venus"], f"of segment 2 are {others}"
        end = max(failover.resumed.values(), default=failover.killed)
        for name in others:
            lost = [
                each.number
                for each in flow.sent[name]
                if failover.begun <= each.at < end and not each.arrived
            ]
            assert not lost, f"{name}, which is moon's, lost {lost[:5]} when alice died"

    @proof
    @each_peer
    def test_captured_packets_are_refused_after_the_failover(
        self, made: Cluster, failover: Failover, peer: str
    ) -> None:
        expect_refused(running(made), failover, peer)

    @proof
    @slow
    @each_peer
    def test_a_rekey_works_after_the_failover(
        self, made: Cluster, failover: Failover, peer: str
    ) -> None:
        made = running(made)
        assert failover.taken, "nobody took over"
        expect_rekey(made, "moon", peer)

    @pytest.fixture(scope="class")
    def revived(self, made: Cluster, failover: Failover | None) -> Revived:
        if failover is None:
            return Revived(made, set())
        return revive(made, alice="1", moon="2")

    @proof
    @slow
    def test_a_gateway_that_comes_back_takes_its_segment_again(
        self, revived: Revived, flow: Traffic
    ) -> None:
        made = running(revived.made)
        expect_new_sas(revived)
        for peer, owner in (("carol", "moon"), ("dave", "alice")):
            for gateway in GATEWAYS:
                state = "ESTABLISHED" if gateway == owner else "PASSIVE"
                expect_state(made, gateway, peer, state)
        before = len(made.net.tap.look())
        assert flow.exchange(ENOUGH), f"the traffic does not come through; {made.said()}"
        packets = made.net.tap.look()
        expect_owners_sent(made, packets[before:])
        double = repeated(packets)
        assert not double, f"sent more than once: {double[:5]}"
        expect_no_number_twice(made)


class ActivePassive(HaCase):
    """ha/active-passive: alice has the one segment, moon takes it when alice dies."""

    case = ACTIVE_PASSIVE

    @proof
    @slow
    def test_alice_is_active_and_moon_passive(self, made: Cluster) -> None:
        made = running(made)
        said = made.charons["alice"].log()
        wanted = "HA segment 1 activated, now active: 1"
        assert wanted in said, f"alice did not log {wanted!r}; {made.said()}"
        said = made.charons["moon"].log()
        wanted = "remote node takes segment 1"
        assert wanted in said, f"moon did not log {wanted!r}; {made.said()}"
        for peer in PEERS:
            expect_state(made, "alice", peer, "ESTABLISHED")
            expect_state(made, "moon", peer, "PASSIVE")

    @proof
    def test_the_gateways_speak_through_ipsec(self, made: Cluster) -> None:
        made = running(made)
        for name, other in (GATEWAYS, GATEWAYS[::-1]):
            own, others = (re.escape(made.at.inside[each]) for each in (name, other))
            wanted = (
                rf"ha.*version=2 state=ESTABLISHED local-host={own} local-port=500 "
                rf".*remote-host={others} remote-port=500 .*child-sas.*ha.*"
                r"state=INSTALLED mode=TRANSPORT protocol=ESP"
            )
            found = [each for each in made.sas(name) if re.search(wanted, each, re.DOTALL)]
            assert found, f"{name} has no SA with {other} like /{wanted}/; {made.said()}"

    @proof
    @each_peer
    def test_a_ping_goes_through_the_active_gateway(self, made: Cluster, peer: str) -> None:
        made = running(made)
        made.net.tap.forget()
        expect_ping(made, peer)
        outside = {
            each
            for each in esp_of(made.net.tap.look(), *GATEWAYS)
            if each.source == made.at.virtual
        }
        ways = [(each.host, each.destination) for each in outside]
        assert ways == [("alice", made.at.outside[peer])], f"ESP to {peer} came from {ways}"

    @proof
    @slow
    def test_moon_takes_over(
        self, made: Cluster, flow: Traffic, failover: Failover, request: pytest.FixtureRequest
    ) -> None:
        made = running(made)
        request.node.user_properties.append(("failover", as_record(made, flow, failover)))
        expect_resumed(made, failover)
        for peer in PEERS:
            expect_state(made, "moon", peer, "ESTABLISHED")
            expect_ping(made, peer)

    @proof
    def test_no_number_repeats_in_the_failover(self, made: Cluster, failover: Failover) -> None:
        running(made)
        double = repeated(failover.packets)
        assert not double, f"sent more than once: {double[:5]}"

    @proof
    @each_peer
    def test_captured_packets_are_refused_after_the_failover(
        self, made: Cluster, failover: Failover, peer: str
    ) -> None:
        expect_refused(running(made), failover, peer)

    @proof
    @slow
    @each_peer
    def test_a_rekey_works_after_the_failover(
        self, made: Cluster, failover: Failover, peer: str
    ) -> None:
        made = running(made)
        assert failover.taken, "nobody took over"
        expect_rekey(made, "moon", peer)

    @pytest.fixture(scope="class")
    def revived(self, made: Cluster, failover: Failover | None) -> Revived:
        if failover is None:
            return Revived(made, set())
        return revive(made, alice="1", moon="")

    @proof
    @slow
    def test_a_gateway_that_comes_back_takes_over_again(
        self, revived: Revived, flow: Traffic
    ) -> None:
        made = running(revived.made)
        expect_new_sas(revived)
        for peer in PEERS:
            expect_state(made, "alice", peer, "ESTABLISHED")
            expect_state(made, "moon", peer, "PASSIVE")
        before = len(made.net.tap.look())
        assert flow.exchange(ENOUGH), f"the traffic does not come through; {made.said()}"
        expect_owners_sent(made, made.net.tap.look()[before:])
        expect_no_number_twice(made)


class BothActiveApart(HaCase):
    """ha/both-active where the plugin's segments are not the kernel's: what that leaves.

    By the kernel, which hashes all of an address, carol is of segment 2 and dave
    of 1. By the plugin all IPv6 hosts are of segment 1.
    """

    case = replace(BOTH_ACTIVE, at=IPV6)

    @proof
    @slow
    def test_the_plugin_takes_every_ipv6_host_for_one(self, made: Cluster) -> None:
        made = running(made)
        for gateway in GATEWAYS:
            spis = {way: sa.spi for way, sa in states_by_way(made, gateway).items()}
            shared = made.at.virtual
            blind = {
                (peer, *(segment_of(jhash_2words(0, spis[way]), 2) for way in ways))
                for peer in (made.at.outside[name] for name in PEERS)
                for ways in [((peer, shared), (shared, peer))]
            }
            said = plugin_segments(made.charons[gateway].log())
            assert said == blind, f"{gateway} says {said} of its CHILD_SAs, expected {blind}"

    @proof
    @slow
    def test_esp_is_divided_by_the_kernel_alone(self, made: Cluster, flow: Traffic) -> None:
        made = running(made)
        made.net.tap.forget()
        assert flow.exchange(ENOUGH), f"the traffic does not come through; {made.said()}"
        packets = made.net.tap.look()
        expect_owners_sent(made, packets)
        senders = {each.host for each in esp_of(packets, *GATEWAYS)}
        assert senders == set(GATEWAYS), f"ESP was sent by {senders}, expected both"
        double = repeated(packets)
        assert not double, f"sent more than once: {double[:5]}"

    @proof
    @slow
    def test_ike_ends_where_its_packets_do_not_come(self, made: Cluster) -> None:
        made = running(made)
        expect_rekey(made, "moon", "carol")
        # Segment 1 goes there and back: by the plugin it is carol's too.
        made.share(("moon", 1), alice="", moon="1,2")
        made.share(("alice", 1), alice="1", moon="2")
        for peer in PEERS:
            expect_state(made, "alice", peer, "ESTABLISHED")
            expect_state(made, "moon", peer, "PASSIVE")
        carol = made.at.outside["carol"]
        assert source_segment(carol, 2) == 2, "carol's IKE is not moon's by the kernel"
        made.net.tap.forget()
        made.charons["carol"].rekey("home")

        def ike(packets: list[Packet], way: tuple[str, str]) -> int:
            return sum(
                (each.source, each.destination) == way and each.protocol == socket.IPPROTO_UDP
                for each in packets
                if each.port.endswith(f"-{OUT}")
            )

        asked = (carol, made.at.virtual)
        assert wait_until(lambda: ike(made.net.tap.look(), asked) > 1, seconds=20), (
            f"carol did not ask again for new SAs: she has an answer, or has not asked; "
            f"{made.said()}"
        )
        answers = ike(made.net.tap.look(), asked[::-1])
        assert not answers, f"carol got {answers} answers from a gateway that is passive"
        expect_ping(made, "carol")
        expect_rekey(made, "alice", "dave")

    @proof
    @slow
    def test_traffic_resumes_when_a_gateway_is_killed(
        self, made: Cluster, failover: Failover
    ) -> None:
        made = running(made)
        expect_resumed(made, failover)
        assert made.owns("moon", "1,2"), f"moon has {made.owned('moon')}, expected 1,2"
        expect_no_number_twice(made)

    @proof
    def test_captured_packets_are_refused_after_the_failover(
        self, made: Cluster, failover: Failover
    ) -> None:
        # Not carol's: the rekeying she had asked for ends when moon has all.
        expect_refused(running(made), failover, "dave")

    @proof
    @slow
    @each_peer
    def test_a_rekey_works_after_the_failover(
        self, made: Cluster, failover: Failover, peer: str
    ) -> None:
        made = running(made)
        assert failover.taken, "nobody took over"
        expect_rekey(made, "moon", peer)
