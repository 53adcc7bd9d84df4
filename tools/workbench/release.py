# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel tree and an imported commit say of themselves."""

from __future__ import annotations

import re

from workbench.model import KernelTag

_ASSIGNMENT = re.compile(
    rb"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)[ \t]*=[ \t]*(.*)$", re.MULTILINE
)
_HEADER_BYTES = 4096


def makefile_tag(makefile: bytes) -> KernelTag | None:
    """Return the release a kernel's top Makefile names, None when it names none."""
    found = {
        key.decode(): value.decode(errors="replace").strip()
        for key, value in reversed(_ASSIGNMENT.findall(makefile[:_HEADER_BYTES]))
    }
    numbers = [found.get(key, "") for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    if not all(number.isdecimal() for number in numbers):
        return None
    rc = re.match(r"-rc(\d+)", found.get("EXTRAVERSION", ""))
    major, minor, patch = map(int, numbers)
    return KernelTag(major, minor, patch, None if rc is None else int(rc[1]))


def trailers(commit: bytes) -> dict[str, str]:
    """Return the ``Key: value`` lines at the end of a raw commit's message."""
    last = commit.decode(errors="replace").rstrip().rpartition("\n\n")[2]
    pairs = (line.partition(": ") for line in last.splitlines())
    return {key: value for key, colon, value in pairs if colon}
