# SPDX-License-Identifier: GPL-2.0-only
"""How a kernel of one architecture is made: kconfigs/arch/<name>.toml."""

from __future__ import annotations

import difflib
import hashlib
import re
from functools import cache
from typing import TYPE_CHECKING, Annotated

import msgspec

from workbench.errors import UsageError

if TYPE_CHECKING:
    from workbench.paths import Paths

_Path = Annotated[str, msgspec.Meta(pattern=r"^!?[\w*][\w*./+-]*$")]


class LeaveOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Which folders a source tree goes without.

    ``folders`` are paths from the tree's top, ``*`` standing for any one
    name, a leading ``!`` making an exception; the last that matches decides.
    ``keep`` are the file names (``*`` for anything) that stay even there.
    """

    folders: tuple[_Path, ...] = ()
    keep: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Name these rules: 12 hex digits."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]

    def covers(self, path: str) -> bool:
        """Tell whether the folder at ``path`` goes."""
        verdict = False
        for rule in self.folders:
            if _matches(rule.removeprefix("!"), path):
                verdict = not rule.startswith("!")
        return verdict

    def hides(self, path: str) -> str | None:
        """Return the folder that goes and would hold this path, None when there is none."""
        parts = path.split("/")
        folders = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        return next((folder for folder in folders if self.covers(folder)), None)

    def reaches_below(self, path: str) -> bool:
        """Tell whether any rule speaks of a folder below ``path``."""
        depth = path.count("/") + 1
        return any(
            _matches("/".join(parts[:depth]), path)
            for rule in self.folders
            if len(parts := rule.removeprefix("!").split("/")) > depth
        )

    def keeps(self, name: str) -> bool:
        """Tell whether a file of this name stays in a folder that goes."""
        return _regex(self.keep).fullmatch(name) is not None


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The words for make, and what it makes.

    ``kernel_arch`` is make's ARCH, ``target`` the goal, ``artefact`` the
    bootable file below the output directory, ``cross_compile`` the prefix of
    the compiler's name ("" for the machine's own).
    """

    kernel_arch: str
    target: str
    artefact: _Path
    cross_compile: str = ""
    leave_out: LeaveOut = LeaveOut()

    @property
    def compiler(self) -> str:
        """The C compiler's program name."""
        return f"{self.cross_compile}gcc"


def known(paths: Paths) -> tuple[str, ...]:
    """Return the names of all architectures."""
    return tuple(sorted(each.stem for each in (paths.kconfigs / "arch").glob("*.toml")))


def load(paths: Paths, arch: str) -> Recipe:
    """Read an architecture's recipe; UsageError when there is none or it is malformed."""
    path = paths.kconfigs / "arch" / f"{arch}.toml"
    if not path.is_file():
        names = known(paths)
        near = difflib.get_close_matches(arch, names, n=1) or names
        raise UsageError(
            f"no architecture {arch!r} in {path.parent}",
            next_step=f"did you mean {near[0]!r}?" if near else "add one",
        )
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Recipe)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            str(error), where=f"{path}", next_step="kconfigs/arch/x86_64.toml shows how"
        ) from error


def left_out(arch: str, folder: str) -> str:
    """Say that an architecture's trees go without a folder, and how to have it back."""
    return f'kconfigs/arch/{arch}.toml leaves out {folder}: add "!{folder}" to its folders'


def _matches(pattern: str, text: str) -> bool:
    return _regex((pattern,)).fullmatch(text) is not None


# A new tree asks 70,000 times: made anew each time, the expressions cost a second.
@cache
def _regex(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Compile what matches a text that any of the patterns does."""
    return re.compile(
        "|".join("[^/]*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
        or r"(?!)"
    )
