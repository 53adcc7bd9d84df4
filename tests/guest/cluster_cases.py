# SPDX-License-Identifier: GPL-2.0-only
"""What must hold of two nodes whatever divides the traffic: E7 and E8 assert it alike.

``remark`` is what a message adds, so that refused rules are known as the cause.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import nf_tables_raw as nf
import sealing
from cluster import JUMP, PORT
from netlink_frames import NetlinkRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xfrm_structures as xs
    from cluster import Cluster
    from under_traffic import Stream

PACKETS = 160


def expect_a_delivers_and_b_follows(cluster: Cluster, sa: xs.Sa, remark: str) -> None:
    """Let 160 packets of A's segment arrive at both; B is to verify each 16th."""
    sealer = cluster.a.sealer(sa)
    cluster.arrive(sealer.datagram(number, PORT) for number in range(1, PACKETS + 1))
    a, b = len(cluster.a.delivered(PACKETS)), len(cluster.b.delivered())
    assert (a, b) == (PACKETS, 0), f"A delivered {a} and B {b}, expected {PACKETS} and 0{remark}"
    windows = [node.replay(sa).received for node in cluster.nodes]
    assert windows == [PACKETS, PACKETS], f"the windows are at {windows}, expected 160 at both"
    decrypted = [node.dumped(sa).packets for node in cluster.nodes]
    assert decrypted == [PACKETS, 10], f"the nodes decrypted {decrypted}, expected [160, 10]"
    errors = [node.errors() for node in cluster.nodes]
    assert errors == [{}, {}], f"the nodes count the errors {errors}, expected none"


def expect_b_sends_far_ahead(cluster: Cluster, sa: xs.Sa, before: list[int], remark: str) -> None:
    """Let both send after a failover to B; ``before`` are the 20 numbers that left until then."""
    by_node = []
    for node in cluster.nodes:
        node.emit(sa, range(20))
        by_node.append([sealing.sequence_of(packet) for packet in cluster.segment.esp()])
    counts = [len(numbers) for numbers in by_node]
    assert counts == [0, 20], (
        f"after the failover A sent {counts[0]} and B {counts[1]}, expected 0 and 20{remark}"
    )
    first = 20 + JUMP + 1
    assert by_node[1] == list(range(first, first + 20)), (
        f"after the failover B sent {by_node[1]}, expected from {first} on"
    )
    assert not set(before) & set(by_node[1]), "a number left before and after the failover"
    taken = cluster.sent(sa)
    assert taken == [first + 19] * 2, f"the numbers are at {taken}, expected {first + 19} on both"


def go_on_until_they_leave(
    stream: Stream, left: list[bytes], changes: int, *, refused: bool
) -> None:
    """Wait for 20 packets with numbers from after so many changes of an SA's node.

    Those sent before are still on their way. A plain host, whose rule is refused, moves none.
    """
    before = len(left)
    above = 0 if refused else changes * JUMP
    stream.until(lambda: sum(sealing.sequence_of(each) > above for each in left[before:]) > 20)


@contextlib.contextmanager
def slow_to_leave(cluster: Cluster) -> Iterator[None]:
    """Let it take a while from when a packet has its number to when a node decides on it.

    So that segments change hands right then. Where there is no hook there is no such moment.
    """
    with contextlib.ExitStack() as undo:
        for node in cluster.nodes:
            table = nf.Table(node.namespace, name="slow")
            undo.callback(table.delete)
            busy = table.rule("out", *(nf.counter(),) * _EXPRESSIONS)
            with contextlib.suppress(NetlinkRefusedError):
                table.apply(table.chain("out", nf.XFRM_OUT, priority=-300))
                for _ in range(_BATCHES):
                    table.apply(*(busy,) * _RULES)
        yield


# What a rule and what a message has room for; together a millisecond or two under TCG.
_EXPRESSIONS, _RULES, _BATCHES = 120, 20, 10
