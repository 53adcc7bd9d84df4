# SPDX-License-Identifier: GPL-2.0-only
"""The programs that build a kernel, and the environment they see: nothing of the user's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from workbench import process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from workbench.paths import Paths
    from workbench.recipe import Recipe

EPOCH: Final = 1577836800
"""The time every build says it was made at: 2020-01-01, in seconds."""

_NEEDED = ("make", "flex", "bison", "bc", "ccache")
_CCACHE_SIZE: Final = "15G"


@dataclass(frozen=True)
class Toolchain:
    """What compiles and links: ``identity`` is one line a program, as it names itself."""

    identity: str


@cache
def find(recipe: Recipe) -> Toolchain:
    """Ask the programs for their versions; InfraError when one is missing. 10 ms a process."""
    for program in _NEEDED:
        process.which(program)
    asked = (recipe.compiler, f"{recipe.cross_compile}ld", "make")
    lines = [process.run((name, "--version")).stdout.partition("\n")[0] for name in asked]
    return Toolchain("\n".join(lines))


def environment(paths: Paths, base: Path) -> Mapping[str, str]:
    """Return the whole environment of a build under ``base`` (the parent of src and out).

    Two builds of one tree must not differ by who built it, when, where or in
    which language, so this is all there is.
    """
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/tmp",  # noqa: S108 - the sandbox's own
        "LC_ALL": "C",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "KBUILD_BUILD_TIMESTAMP": "Wed Jan  1 00:00:00 UTC 2020",
        "KBUILD_BUILD_USER": "kpw",
        "KBUILD_BUILD_HOST": "kpw",
        "KBUILD_BUILD_VERSION": "1",
        "LOCALVERSION": "",
        "CCACHE_DIR": str(paths.ccache),
        "CCACHE_TEMPDIR": str(paths.ccache / "tmp"),
        "CCACHE_MAXSIZE": _CCACHE_SIZE,
        "CCACHE_CONFIGPATH": "/dev/null",
        # Hits from another workspace: paths are taken relative to it.
        "CCACHE_BASEDIR": str(base),
        "CCACHE_NOHASHDIR": "1",
        # Dependency files name what was read: no second preprocessing.
        "CCACHE_DEPEND": "1",
    }


def make_words(recipe: Recipe) -> tuple[str, ...]:
    """Return the variables of every make command."""
    return (
        f"ARCH={recipe.kernel_arch}",
        f"CROSS_COMPILE={recipe.cross_compile}",
        f"CC=ccache {recipe.compiler}",
        "HOSTCC=ccache gcc",
        # Whether these are installed shall not show in the configuration.
        "RUSTC=false",
        "PAHOLE=false",
    )
