# SPDX-License-Identifier: GPL-2.0-only
"""Where a patch made for one kernel belongs, and the table that says so in extension.toml.

The table is put into the text: what a person wrote around it, comments and
layout, stays byte for byte.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from workbench.description import patch_number
from workbench.errors import UsageError
from workbench.model import KernelTag

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.declared import Extension

_TABLE = re.compile(r"""\[variants\.(?:"([^"]+)"|'([^']+)')\]\s*(?:#.*)?""")
_BASE = re.compile(r"""(\s*base\s*=\s*)(?:"[^"]*"|'[^']*')(.*)""")


def since_for(extension: Extension, patch: Path, base: KernelTag, tag: KernelTag) -> KernelTag:
    """Return the tag of the ``since-`` folder a patch for ``tag`` goes into.

    ``patch`` is the file used for the tag now, ``base`` what that was made
    on. A folder whose patches are made on this very tag is taken again. Else
    it is the start of the series (``v6.12``), which speaks for younger ones
    too; the tag itself where the series has a patch of its own already.
    """
    speaking = [each for each in extension.variants if tag.includes(each.since)]
    for variant in reversed(speaking):
        if variant.base == tag:
            return variant.since
        if patch_number(patch) in {patch_number(each) for each in variant.patches}:
            break
    start = KernelTag.parse(tag.series)
    taken = {variant.since for variant in extension.variants}
    fits = base.series != tag.series and start not in taken and tag.includes(start)
    return start if fits else tag


def with_table(text: str, since: KernelTag, base: KernelTag) -> str:
    """Return the text of an extension.toml with ``[variants."<since>"] base = "<base>"``.

    A table that is there gets this base; a new one is put in order among the
    others, or at the end.
    """
    lines = text.splitlines(keepends=True)
    tables = {KernelTag.parse(match[1] or match[2]): at for at, match in _tables(lines)}
    if since in tables:
        at = _base_line(lines, tables[since])
        lines[at] = _BASE.sub(rf'\g<1>"{base}"\g<2>', lines[at])
        return "".join(lines)
    new = f'[variants."{since}"]\nbase = "{base}"\n'
    older = [tables[tag] for tag in sorted(tables) if tag < since]
    if older:
        at = _base_line(lines, older[-1]) + 1
        lines[at - 1] = lines[at - 1].rstrip("\n") + "\n"
        return "".join([*lines[:at], f"\n{new}", *lines[at:]])
    if tables:
        at = _with_comment(lines, min(tables.values()))
        return "".join([*lines[:at], f"{new}\n", *lines[at:]])
    return text.rstrip("\n") + f"\n\n{new}"


def without_table(text: str, since: KernelTag) -> str:
    """Return the text of an extension.toml without a table, and the comment right above it."""
    lines = text.splitlines(keepends=True)
    for at, match in _tables(lines):
        if KernelTag.parse(match[1] or match[2]) == since:
            start, end = _with_comment(lines, at), _base_line(lines, at) + 1
            while start and end < len(lines) and not lines[start - 1].strip():
                start -= 1
            return "".join([*lines[:start], *lines[end:]]).rstrip("\n") + "\n"
    return text


def _tables(lines: list[str]) -> list[tuple[int, re.Match[str]]]:
    matches = ((at, _TABLE.fullmatch(line.strip())) for at, line in enumerate(lines))
    return [(at, match) for at, match in matches if match]


def _base_line(lines: list[str], start: int) -> int:
    """Find a table's ``base``; UsageError when it is not written as we write it."""
    for at in range(start + 1, len(lines)):
        if _BASE.fullmatch(lines[at].rstrip("\n")):
            return at
        if lines[at].lstrip().startswith("["):
            break
    raise UsageError(
        f"{lines[start].strip()} has no line 'base = \"...\"'",
        where=f"extension.toml:{start + 1}",
        next_step="write it on a line of its own",
    )


def _with_comment(lines: list[str], at: int) -> int:
    """Return where the comment above a line begins, or the line itself."""
    while at and lines[at - 1].startswith("#"):
        at -= 1
    return at
