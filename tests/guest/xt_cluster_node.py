# SPDX-License-Identifier: GPL-2.0-only
"""A node of a cluster whose segments are said by xt_cluster revision 1.

What drives packets is cluster.py's; this says who takes them. Where the kernel
refuses the rules the node goes on as a plain host, and messages say why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster import PORT
from netlink_frames import NetlinkRefusedError
from xt_cluster_rules import FILE, RULE, Plan, Rules

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xfrm_structures as xs
    from cluster import Cluster, Node

NAME = "gateway"


@dataclass
class Member:
    """A node and its rules; ``refused`` is what the kernel said to them, "" when it took them."""

    node: Node
    rules: Rules = field(init=False)
    refused: str = "there are no rules"

    def join(self, total: int, *owned: int, by: str = RULE, seed: int = 0) -> Member:
        """Make the rules."""
        address = self.node.ends.cluster
        plan = Plan(address, total, seed, by, NAME if by == FILE else "")
        self.rules = Rules(self.node.namespace, plan)
        try:
            self.rules.join(owned)
        except NetlinkRefusedError as refusal:
            self.refused = str(refusal)
        else:
            self.refused = ""
        return self

    def own(self, *owned: int) -> None:
        """Own these segments and no others from now on, unless it is a plain host."""
        if not self.refused:
            self.rules.own(owned, self.rules.owned())

    @property
    def remark(self) -> str:
        """What an assertion adds, so that refused rules are known as the cause."""
        return f" ({self.refused})" if self.refused else ""

    def takes(self, made: xs.Sa, numbers: Iterable[int], *, expected: int = 0) -> int:
        """Let packets of an SA arrive; return how many of them were delivered."""
        self.node.forget()
        sealer = self.node.sealer(made)
        for number in numbers:
            self.node.link.send(sealer.datagram(number, PORT))
        return len(self.node.delivered(expected))


@dataclass
class Members:
    """Both nodes of a cluster."""

    cluster: Cluster

    def __post_init__(self) -> None:
        """Have no rules yet."""
        self.a = Member(self.cluster.a)
        self.b = Member(self.cluster.b)

    def join(self, total: int, owned: tuple[tuple[int, ...], tuple[int, ...]], by: str) -> None:
        """Make the rules of both."""
        for member, segments in zip((self.a, self.b), owned, strict=True):
            member.join(total, *segments, by=by)

    def leave(self) -> None:
        """Take the rules away."""
        for member in (self.a, self.b):
            if not member.refused:
                member.rules.leave()

    def fail_over(self, segment: int) -> None:
        """Let B own a segment of A's."""
        if self.a.refused or self.b.refused:
            return
        taken = (*self.b.rules.owned(), segment)
        self.a.own(*(one for one in self.a.rules.owned() if one != segment))
        self.b.own(*taken)

    @property
    def remark(self) -> str:
        """What an assertion adds."""
        return self.a.remark
