# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel build may touch: nothing but its own directories, and no network.

A kernel tree is a program of somebody else's: its Makefiles, its Kconfig
files and a patch to either run as we do. bubblewrap gives them the whole
machine read-only, a /tmp of their own, the directories named, and a network
that reaches nobody.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from workbench import process
from workbench.errors import InfraError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_WALLS = (
    *("--ro-bind", "/", "/"),
    *("--dev", "/dev"),
    *("--proc", "/proc"),
    *("--tmpfs", "/tmp"),  # noqa: S108 - the sandbox's own, not ours
    # Sockets lie here: a container daemon's is a way out that needs no network.
    *("--tmpfs", "/run"),
    *("--unshare-net", "--unshare-pid", "--unshare-ipc"),
    *("--cap-drop", "ALL"),
    *("--die-with-parent", "--new-session"),
)


def argv(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    writable: Sequence[Path],
    readable: Sequence[Path] = (),
) -> tuple[str, ...]:
    """Return the command line that runs ``command`` inside.

    All paths are absolute and exist. ``readable`` is needed only for what may
    lie under /tmp or /run, where the sandbox has its own.
    """
    binds = [word for path in readable for word in ("--ro-bind", str(path), str(path))]
    binds += [word for path in writable for word in ("--bind", str(path), str(path))]
    return ("bwrap", *_WALLS, *binds, "--chdir", str(cwd), "--", *map(str, command))


@cache
def require() -> None:
    """Raise InfraError when this machine cannot make a sandbox; asked once a process."""
    done = process.run(("bwrap", *_WALLS, "--", "true"), check=False)
    if done.returncode != 0:
        raise InfraError(
            f"no sandbox for builds: {done.last_line()}",
            where="bwrap",
            next_step="run as root, or allow user namespaces (sysctl user.max_user_namespaces,"
            " kernel.unprivileged_userns_clone)",
        )
