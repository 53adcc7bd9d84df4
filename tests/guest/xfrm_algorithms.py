# SPDX-License-Identifier: GPL-2.0-only
"""Print the algorithms that this kernel can install an SA with, as a table.

    python3 xfrm_algorithms.py [WORD...]

With words, only rows that have them all: ``aead``, ``esp``, ``aes``. Lengths
are in bits; those of keys count nonce and salt. It asks by XFRM_MSG_GETALG
and takes CAP_NET_ADMIN.
"""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

from netlink_frames import NetlinkRefusedError
from xfrm_netlink import XfrmSocket
from xfrm_structures import Algorithm

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_HEADINGS = ("type", "name", "also", "for", "icv", "key", "iv")
_PROTOCOLS = ((Algorithm.ESP, "esp"), (Algorithm.AH, "ah"), (Algorithm.COMP, "comp"))


def table(algorithms: Iterable[Algorithm], words: Sequence[str] = ()) -> str:
    """Return the rows that have all the words, below a line of headings."""
    rows = [row for row in map(_row, algorithms) if all(word in " ".join(row) for word in words)]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (_HEADINGS, *rows)
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _row(algorithm: Algorithm) -> tuple[str, ...]:
    return (
        algorithm.attribute.removeprefix("XFRMA_ALG_").lower(),
        algorithm.name,
        algorithm.compat_name,
        "+".join(name for flag, name in _PROTOCOLS if algorithm.flags & flag),
        _range(algorithm.icv, algorithm.icv_max),
        _range(algorithm.key_min, algorithm.key_max),
        str(algorithm.iv or ""),
    )


def _range(low: int, high: int) -> str:
    if low == high:
        return str(low or "")
    return f"{low}-{high}"


def main() -> None:
    """Ask, and print or say why not."""
    try:
        algorithms = XfrmSocket().algorithms()
    except NetlinkRefusedError as refusal:
        unknown = refusal.errno == errno.EINVAL
        hint = "; this kernel has no XFRM_MSG_GETALG" if unknown else ""
        sys.exit(f"{refusal}{hint}")
    sys.stdout.write(table(algorithms, sys.argv[1:]))


if __name__ == "__main__":
    main()
