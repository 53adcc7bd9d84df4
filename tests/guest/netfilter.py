# SPDX-License-Identifier: GPL-2.0-only
"""What netfilter saw of the packets under test, read from one nftables table."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from namespaces import Namespace

#: 6.7 and later have GRO open ESP in UDP, for a socket with UDP_ENCAP and UDP_GRO.
GRO_OPENS_ESP_IN_UDP = tuple(map(int, re.findall(r"\d+", platform.release())[:2])) >= (6, 7)

_TABLE = """
table inet seen
delete table inet seen
table inet seen {{
  set marks {{ type mark; flags dynamic; size 64; }}
  set esp_marks {{ type mark; flags dynamic; size 64; }}
  chain before {{
    type filter hook prerouting priority -300
    meta l4proto esp counter comment "outer"
    {prior}
  }}
  chain input {{
    type filter hook input priority 0
    udp dport {port} counter add @marks {{ meta mark }} comment "inner"
  }}
  chain leaving {{
    type filter hook postrouting priority 300
    meta l4proto esp add @esp_marks {{ meta mark }}
  }}
}}
"""


@dataclass(frozen=True)
class Seen:
    """Counts and marks of the packets of one namespace.

    ``outer`` counts ESP packets in prerouting, which GRO bypasses; ``inner``
    the datagrams that reached the input hook, ``marks`` the marks they had;
    ``esp_marks`` the marks of the ESP packets that left.
    """

    outer: int
    inner: int
    marks: tuple[int, ...]
    esp_marks: tuple[int, ...]


def watch(namespace: Namespace, *, port: int, prior_mark: int | None = None) -> None:
    """Begin to count, from zero; ``prior_mark`` is given to ESP before it is decrypted."""
    prior = "" if prior_mark is None else f"meta l4proto esp meta mark set {prior_mark:#x}"
    namespace.run(["nft", "-f", "-"], text=_TABLE.format(port=port, prior=prior))


def seen(namespace: Namespace) -> Seen:
    """Return what was counted so far."""
    listed = json.loads(namespace.run(["nft", "-j", "list", "table", "inet", "seen"]))["nftables"]
    counts = {}
    for rule in (item["rule"] for item in listed if "rule" in item):
        # Counters without a name: named ones are an option of their own before v6.2.
        for counter in (part["counter"] for part in rule["expr"] if "counter" in part):
            counts[rule["comment"]] = counter["packets"]
    sets = {item["set"]["name"]: item["set"].get("elem", ()) for item in listed if "set" in item}
    return Seen(
        outer=counts["outer"],
        inner=counts["inner"],
        marks=tuple(sorted(sets["marks"])),
        esp_marks=tuple(sorted(sets["esp_marks"])),
    )


_OUTER = """
table inet outer
delete table inet outer
table inet outer {{
  chain before {{
    type filter hook prerouting priority -300
    udp dport {port} counter
  }}
}}
"""


def datagrams_in_prerouting(namespace: Namespace, port: int) -> Callable[[], int]:
    """Begin to count the datagrams to a port that netfilter sees; return the counter.

    What GRO has opened is not among them.
    """
    namespace.run(["nft", "-f", "-"], text=_OUTER.format(port=port))

    def count() -> int:
        listed = namespace.run(["nft", "list", "table", "inet", "outer"])
        found = re.search(r"counter packets (\d+)", listed)
        return int(found[1]) if found else -1

    return count
