# SPDX-License-Identifier: GPL-2.0-only
"""What git is run with on the store: its configuration, its environment, nobody's name."""

from __future__ import annotations

import os
from typing import Final

#: Commits made here must be the same on every machine, so nobody's name is on them.
IDENTITY: Final = ("Kernel Patch Workbench", "workbench@localhost")
#: Default date of a commit (2020-01-01), for what has no date of its own.
EPOCH: Final = "1577836800 +0000"

CONFIGURATION: Final = {
    # Nothing may repack or prune behind a running rebase or import.
    "gc.auto": "0",
    "maintenance.auto": "false",
    # After a power cut a ref must not name a pack that never reached the disk.
    # Loose objects are left out: a rebase writes hundreds, and can be redone.
    "core.fsync": "pack,pack-metadata,reference",
    "core.logAllRefUpdates": "false",
    # A fetch keeps its pack: unpacking a kernel writes 90,000 files.
    "transfer.unpackLimit": "1",
    # The user's own settings must not decide what a tree looks like.
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.autocrlf": "false",
    "core.quotePath": "true",
}


def fixed() -> dict[str, str]:
    """Return the variables that are the same in every run of git."""
    name, email = IDENTITY
    return {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_AUTHOR_DATE": EPOCH,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
        "GIT_COMMITTER_DATE": EPOCH,
        "LC_ALL": "C",
        "LANGUAGE": "C",
        "TZ": "UTC",
    }


def forget_outer() -> None:
    """Drop GIT_* from our own environment: GitPython hands all of it to git.

    Started from a hook or by 'git bisect run', GIT_DIR and GIT_INDEX_FILE name
    the user's repository; nothing this process starts has any business there.
    """
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        if not name.startswith("GIT_PYTHON_"):
            del os.environ[name]
