# SPDX-License-Identifier: GPL-2.0-only
"""Which names may be in a kernel tree: nothing may lead out of it."""

from __future__ import annotations

import posixpath

#: Linux's PATH_MAX (with the NUL) and NAME_MAX, in bytes.
_LONGEST, _LONGEST_PART = 4095, 255


def outside(path: str) -> str:
    """Tell why a name may not be in a tree; empty when it may."""
    parts = path.split("/")
    if path.startswith("/"):
        return "is an absolute path"
    if ".." in parts:
        return "leaves the tree"
    if any(part in {"", "."} for part in parts):
        return "is not a plain path"
    # What follows a colon is a stream of the file on NTFS, and git takes no such name.
    if any(part.partition(":")[0].rstrip(". ").lower() in {".git", "git~1"} for part in parts):
        return "is git's own"
    if not path.isprintable() or "\\" in path:
        return "has characters no kernel file has"
    longest = max(len(part.encode()) for part in parts)
    too_long = longest > _LONGEST_PART or len(path.encode()) > _LONGEST
    return "is longer than a file's name can be" if too_long else ""


def leads_outside(path: str, target: str) -> bool:
    """Tell whether a symbolic link at ``path`` leaves the tree."""
    goal = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return target.startswith("/") or goal == ".." or goal.startswith("../")
