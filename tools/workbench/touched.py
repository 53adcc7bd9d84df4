# SPDX-License-Identifier: GPL-2.0-only
"""Which files a patch touches, and which of a kernel's sources that concerns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from workbench import process
from workbench.errors import InfraError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from workbench.gitstore import Store

_NEW_NAME = re.compile(r"\+\+\+ b/(.+?)\t?")
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@.*")
# Programs of the host and of user space: no make of the kernel's compiles these as objects.
_NOT_KERNEL: Final = ("Documentation/", "samples/", "scripts/", "tools/", "usr/")
_INCLUDE_ROOT = re.compile(r"(?:arch/\w+/)?include/((?:uapi/)?(.+))")


def new_lines(store: Store, before: str, after: str) -> dict[str, frozenset[int]]:
    """Return the files one tree has anew or otherwise than another, with the lines that differ."""
    words = ("diff-tree", "-r", "-p", "-U0", "--no-renames", before, after)
    found: dict[str, set[int]] = {}
    current: set[int] = set()
    inside = 0
    for line in store.git(*words).split("\n"):
        if inside and line[:1] in {"+", "-"}:
            inside -= 1
        elif name := _NEW_NAME.fullmatch(line):
            current = found.setdefault(name[1], set())
        elif hunk := _HUNK.fullmatch(line):
            old, start, new = (int(number or 1) for number in hunk.groups())
            inside = old + new
            current.update(range(start, start + new))
    return {path: frozenset(lines) for path, lines in found.items()}


def sources(paths: Iterable[str]) -> tuple[str, ...]:
    """Return those that are compiled to an object of the kernel."""
    return tuple(path for path in paths if path.endswith((".c", ".S")) and _is_kernel(path))


def headers(paths: Iterable[str]) -> tuple[str, ...]:
    """Return those that sources of the kernel include."""
    return tuple(path for path in paths if path.endswith(".h") and _is_kernel(path))


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
        raise InfraError(done.last_line(), where=f"grep in {src}")
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


def describe(touched: Mapping[str, frozenset[int]]) -> str:
    """Return what a patch touches that nothing compiles, in one phrase."""
    return f"no C of the kernel in it ({', '.join(sorted(touched))})"
