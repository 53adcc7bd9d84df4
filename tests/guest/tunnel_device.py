# SPDX-License-Identifier: GPL-2.0-only
"""Tunnels that are devices: what is routed to one gets its SA there, and not before."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING

import xfrm_structures as xs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster import Cluster

#: Kinds there are for IPv4 and for IPv6.
XFRM, VTI, VTI6 = "xfrm", "vti", "vti6"
_NAME = "ipsec"
_ID = 7
_ATTRIBUTES = {
    XFRM: ("XFRMA_IF_ID", struct.pack("=I", _ID)),
    VTI: ("XFRMA_MARK", struct.pack("=II", _ID, 0xFFFFFFFF)),
    VTI6: ("XFRMA_MARK", struct.pack("=II", _ID, 0xFFFFFFFF)),
}


@contextlib.contextmanager
def behind_devices(cluster: Cluster, kind: str) -> Iterator[xs.Sa]:
    """Give both nodes a device to the peer's network; return its SA, of segment 1 of 2."""
    ends = cluster.a.ends
    made = cluster.a.outbound(1, 2, _ATTRIBUTES[kind], mode=xs.MODE_TUNNEL)
    tunnel = f"local {ends.cluster} remote {ends.peer} key {_ID}"
    how = f"dev {cluster.a.device} if_id {_ID}" if kind == XFRM else tunnel
    selected = f"if_id {_ID}" if kind == XFRM else f"mark {_ID} mask 0xffffffff"
    with contextlib.ExitStack() as undo:
        for node in cluster.nodes:
            node.xfrm.add(made)
            node.namespace.ip(
                f"link add {_NAME} type {kind} {how}",
                f"link set {_NAME} up",
                f"route add {ends.behind_peer}/{ends.bits} dev {_NAME}",
                f"xfrm policy add src {ends.nets[0]} dst {ends.nets[1]} dir out {selected}"
                f" tmpl src {ends.cluster} dst {ends.peer} proto esp mode tunnel",
            )
            undo.callback(node.namespace.ip, f"link del {_NAME}")
        yield made
