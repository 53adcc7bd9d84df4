# SPDX-License-Identifier: GPL-2.0-only
"""Which files a patch touches, and which of a kernel's sources that concerns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workbench import process
from workbench.errors import InfraError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from workbench.gitstore import Store

_OLD_NAME = re.compile(r"--- a/(.+?)\t?")
_NEW_NAME = re.compile(r"\+\+\+ b/(.+?)\t?")
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@.*")
# Programs of the host and of user space: no make of the kernel's compiles these as objects.
_NOT_KERNEL: Final = ("Documentation/", "samples/", "scripts/", "tools/", "usr/")
_INCLUDE_ROOT = re.compile(r"(?:arch/\w+/)?include/((?:uapi/)?(.+))")


@dataclass(frozen=True)
class Touched:
    """What a tree has otherwise than another.

    ``lines`` are the files that are there anew or changed, each with the
    lines that differ; ``gone`` those that are there no more.
    """

    lines: Mapping[str, frozenset[int]]
    gone: tuple[str, ...] = ()


def between(store: Store, before: str, after: str) -> Touched:
    """Compare two trees of the store; a renamed file is one that goes and one that comes."""
    words = ("diff-tree", "-r", "-p", "-U0", "--no-renames", before, after)
    lines: dict[str, set[int]] = {}
    gone: list[str] = []
    current: set[int] = set()
    inside = 0
    old_name = ""
    for line in store.git(*words).split("\n"):
        if inside and line[:1] in {"+", "-"}:
            inside -= 1
        elif name := _OLD_NAME.fullmatch(line):
            old_name = name[1]
        elif line == "+++ /dev/null":
            gone.append(old_name)
            current = set()
        elif name := _NEW_NAME.fullmatch(line):
            current = lines.setdefault(name[1], set())
        elif hunk := _HUNK.fullmatch(line):
            old, start, new = (int(number or 1) for number in hunk.groups())
            inside = old + new
            current.update(range(start, start + new))
    return Touched({path: frozenset(numbers) for path, numbers in lines.items()}, tuple(gone))


def sources(paths: Iterable[str]) -> tuple[str, ...]:
    """Return those that are compiled to an object of the kernel."""
    return tuple(path for path in paths if path.endswith((".c", ".S")) and _is_kernel(path))


def headers(paths: Iterable[str]) -> tuple[str, ...]:
    """Return those that sources of the kernel include."""
    return tuple(path for path in paths if path.endswith(".h") and _is_kernel(path))


def is_makefile(path: str) -> bool:
    """Tell whether a file says what is built."""
    return path.rpartition("/")[2] in {"Makefile", "Kbuild"}


def object_of(source: str) -> str:
    """Return the object make is asked for, as in ``net/xfrm/xfrm_user.o``."""
    return source.rpartition(".")[0] + ".o"


def includers(src: Path, touched: Iterable[str]) -> tuple[str, ...]:
    """Return the .c files below ``src`` that include one of these headers by name.

    Those that get it through another header are not among them. A second.
    """
    wanted = "|".join(sorted({_included_as(header) for header in touched}))
    if not wanted:
        return ()
    pattern = rf"^[[:space:]]*#[[:space:]]*include[[:space:]]*({wanted})"
    argv = ("grep", "-rlE", "--include=*.c", "--", pattern, ".")
    done = process.run(argv, cwd=src, check=False, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"})
    if done.returncode not in {0, 1}:
        raise InfraError(
            done.last_line(),
            where=f"grep in {src}",
            next_step="remove that folder and run it again: it is made anew",
        )
    return sources(sorted(path.removeprefix("./") for path in done.stdout.splitlines()))


def _is_kernel(path: str) -> bool:
    return not path.startswith(_NOT_KERNEL)


def _included_as(header: str) -> str:
    """Return the extended regular expression of a header's names in an #include."""
    below = _INCLUDE_ROOT.fullmatch(header)
    if below is None:
        return rf'"([^"]*/)?{_escaped(header.rpartition("/")[2])}"'
    full, name = _escaped(below[1]), _escaped(below[2].removeprefix("generated/"))
    return rf'[<"]({full}|{name})[>"]'


def _escaped(name: str) -> str:
    return re.sub(r"[.+]", lambda match: f"\\{match[0]}", name)
