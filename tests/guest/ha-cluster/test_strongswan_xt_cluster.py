# SPDX-License-Identifier: GPL-2.0-only
"""E8 judged by strongSwan: its own HA cases, with xt_cluster to divide the traffic.

The ha plugin is as it is: it writes to the file of the rules, which lies where
CLUSTERIP's do. What CLUSTERIP does besides, to give the shared addresses a
multicast MAC in ARP, is nft's here, and over IPv6 permanent neighbour entries.

Over IPv6 active/passive is whole and both-active is not: docs/ha.md says why.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import ha_cases
from ha_gateways import ACTIVE_PASSIVE
from ha_network import IPV4, IPV6, Addresses
from namespaces import SetUpError
from netlink_frames import NetlinkRefusedError
from xt_cluster_rules import FILE, Plan, Rules

if TYPE_CHECKING:
    from namespaces import Namespace

_ARP = """
table arp mars {{
  chain output {{
    type filter hook output priority 0
    {rules}
  }}
}}
"""


class XtCluster:
    """Match "cluster", revision 1, with a file for the plugin."""

    refusal = r"a filter chain at hook 8 refused: "
    files: tuple[str, ...] = ("mars",)

    def __init__(self, at: Addresses = IPV4) -> None:
        """Divide what goes to and from these addresses."""
        self._at = at

    def put(self, gateway: Namespace, total: int) -> None:
        """Give a gateway its rules; it owns no segment yet."""
        try:
            self._rules(gateway, total).join()
        except NetlinkRefusedError as error:
            raise SetUpError(f"{gateway.label}: {error}") from error
        rules = []
        for device, address, mac in self._at.shared_macs():
            gateway.ip(f"maddress add {mac} dev {device}")
            rules.append(f"oifname {device} arp saddr ip {address} arp saddr ether set {mac}")
        if not self._at.is_ipv6:
            gateway.run(["nft", "-f", "-"], text=_ARP.format(rules="\n    ".join(rules)))

    def clear(self, gateway: Namespace) -> None:
        """Take them away, but for those of iptables-legacy."""
        self._rules(gateway, 1).leave()
        if not self._at.is_ipv6:
            gateway.run(["nft", "delete", "table", "arp", "mars"])
        gateway.ip(
            *(f"maddress del {mac} dev {device}" for device, _, mac in self._at.shared_macs())
        )

    def _rules(self, gateway: Namespace, total: int) -> Rules:
        return Rules(gateway, Plan(self._at.virtual, total, by=FILE, name="mars"))


class TestBothActive(ha_cases.BothActive):
    """ha/both-active."""

    division = XtCluster()


class TestActivePassive(ha_cases.ActivePassive):
    """ha/active-passive."""

    division = XtCluster()


class TestActivePassiveIPv6(ha_cases.ActivePassive):
    """ha/active-passive over IPv6."""

    case = replace(ACTIVE_PASSIVE, at=IPV6)
    division = XtCluster(IPV6)


class TestBothActiveIPv6(ha_cases.BothActiveApart):
    """ha/both-active over IPv6, as far as it goes."""

    division = XtCluster(IPV6)
