#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-only
"""What a guest runs, instead of its payload's command, when a snapshot is made of it.

It imports what selftests import (/usr/lib/kpw/preload.list), says so, and
waits until its second disk is not empty any more: the host makes the
snapshot meanwhile, and whoever is restored from it finds a payload there.
Then it goes on as payload's start.py, with all of that imported.
"""

from __future__ import annotations

import gc
import importlib
import json
import mmap
import os
import runpy
import time
from pathlib import Path

RESULTS = Path("/dev/virtio-ports/kpw.results")
INIT = "/usr/sbin/kpw-init"
DISK = "/dev/vdb"
START = "/payload/start.py"
SECTOR = 512


def tell(line: dict[str, object]) -> None:
    """Give the host a line."""
    RESULTS.write_text(json.dumps(line, separators=(",", ":")) + "\n")


def wait_for_payload() -> None:
    """Return when the second disk has a first byte."""
    # Not through the page cache: the disk changes under the guest.
    disk = os.open(DISK, os.O_RDONLY | os.O_DIRECT)
    first = mmap.mmap(-1, mmap.PAGESIZE)
    sector = memoryview(first)[:SECTOR]
    while not os.preadv(disk, [sector], 0) or not first[0]:
        time.sleep(0.002)
    sector.release()
    first.close()
    os.close(disk)


def boot_line() -> dict[str, object]:
    """Return what the init says of an ordinary boot."""
    seconds = float(Path("/proc/uptime").read_text().split()[0])
    return {"kpw": "boot", "uptime": seconds, "release": os.uname().release}


def main() -> None:
    """Import, wait, and become the selftests."""
    gc.disable()  # nothing the imports make is garbage
    for module in Path("/usr/lib/kpw/preload.list").read_text().split():
        importlib.import_module(module)
    tell({"kpw": "ready"})
    wait_for_payload()
    tell(boot_line())
    if os.spawnv(os.P_WAIT, INIT, [INIT, "unpack"]):  # noqa: S606 - no shell is meant
        raise SystemExit("kpw: the payload could not be unpacked")
    runpy.run_path(START, run_name="__main__")


if __name__ == "__main__":
    main()
