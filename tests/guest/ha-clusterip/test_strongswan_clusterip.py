# SPDX-License-Identifier: GPL-2.0-only
"""E7 judged by strongSwan: its own HA cases, with iptables' CLUSTERIP to divide the traffic."""

from __future__ import annotations

import ha_cases
from ha_gateways import ClusterIp


class TestBothActive(ha_cases.BothActive):
    """ha/both-active."""

    division = ClusterIp()


class TestActivePassive(ha_cases.ActivePassive):
    """ha/active-passive."""

    division = ClusterIp()
