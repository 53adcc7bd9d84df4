# SPDX-License-Identifier: GPL-2.0-only
"""Lay out what could not be merged: regions, both sides, and what upstream has around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import InfraError
from workbench.model import Conflict

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.filechange import FileChange
    from workbench.gitapply import Entry
    from workbench.gitstore import Store
    from workbench.threeway import Clash

_CONTEXT = 6
_MARKS = 63
_MAX_REGIONS = 127


@dataclass(frozen=True)
class Region:
    """Lines ``start`` (1-based) to before ``start + count`` of the upstream file."""

    start: int
    upstream: bytes
    ours: bytes

    @property
    def count(self) -> int:
        """How many upstream lines it covers."""
        return len(self.upstream.splitlines())


class Explainer:
    """Turns clashes into conflicts; ``folder`` is scratch, ``remedy`` what to do about them."""

    def __init__(self, store: Store, folder: Path, remedy: str) -> None:
        """``remedy`` names the patch file to write; how to see the place is added here."""
        self._store = store
        self._folder = folder
        self._remedy = remedy

    def explain(self, clash: Clash) -> tuple[Conflict, ...]:
        """Return a conflict for each region of a clash, or one for the whole file."""
        text = self._text(clash.upstream)
        regions = self._regions(clash, text)
        if not regions:
            whole = Region(0, b"", b"".join(hunk.after for hunk in clash.change.hunks))
            return (self._conflict(clash, whole, text),)
        return tuple(self._conflict(clash, region, text) for region in regions)

    def explain_gone(self, change: FileChange, kernel: str) -> Conflict:
        """Return the conflict of a change to a file that upstream no longer has."""
        return Conflict(
            path=change.old or "",
            line=0,
            kind=f"gone in {kernel}",
            upstream="",
            ours=_readable(b"".join(hunk.after for hunk in change.hunks)),
            context="",
            next_step=f"find out what replaced {change.old}, then {self._remedy}",
        )

    def _conflict(self, clash: Clash, region: Region, text: bytes) -> Conflict:
        first = max(1, region.start - _CONTEXT)
        last = region.start + region.count + _CONTEXT - 1
        look = ""
        if clash.upstream is not None:
            show = f"git --git-dir={self._store.path} cat-file -p {clash.upstream.oid[:16]}"
            look = f"; see the place with: {show} | sed -n {first},{last}p"
        return Conflict(
            path=clash.path,
            line=region.start,
            kind=clash.kind,
            upstream=_readable(region.upstream),
            ours=_readable(region.ours),
            context=_readable(b"".join(text.splitlines(keepends=True)[first - 1 : last])),
            next_step=self._remedy + look,
        )

    def _regions(self, clash: Clash, text: bytes) -> list[Region]:
        if clash.failed_line:
            return _hunk_region(clash, text)
        if clash.patched is None or clash.upstream is None:
            return []
        sides = [self._file(name, self._text(entry)) for name, entry in (
            ("upstream", clash.upstream), ("base", clash.base), ("patch", clash.patched)
        )]  # fmt: skip
        words = ("merge-file", "--stdout", "--quiet", f"--marker-size={_MARKS}")
        code, merged, err = self._store.git_bytes(*words, *sides)
        if code > _MAX_REGIONS:
            if "binary" in err:
                return []
            raise InfraError(err or f"exit code {code}", where=f"git merge-file {clash.path}")
        return _parse(merged)

    def _file(self, name: str, data: bytes) -> Path:
        path = self._folder / f"side-{name}"
        path.write_bytes(data)
        return path

    def _text(self, entry: Entry | None) -> bytes:
        return b"" if entry is None else self._store.cat_file(entry.oid)


def _hunk_region(clash: Clash, text: bytes) -> list[Region]:
    """Return what upstream has where a hunk expected its old text."""
    hunk = next(
        (each for each in clash.change.hunks if each.old_start >= clash.failed_line),
        clash.change.hunks[-1],
    )
    start = max(1, hunk.old_start)
    lines = text.splitlines(keepends=True)[start - 1 : start - 1 + hunk.old_count]
    return [Region(start, b"".join(lines), hunk.after)]


def _parse(merged: bytes) -> list[Region]:
    """Find the regions between the marks ``git merge-file`` wrote."""
    opened, middle, closed = (bytes([mark]) * _MARKS for mark in b"<=>")
    regions = []
    sides: list[list[bytes]] = []
    line_number = 1
    start = 1
    for line in merged.split(b"\n"):
        if line.startswith(opened + b" "):
            sides, start = [[]], line_number
        elif sides and line.rstrip(b"\r") == middle:
            sides.append([])
        elif sides and line.startswith(closed + b" "):
            regions.append(Region(start, *(_joined(side) for side in sides)))
            sides = []
        elif sides:
            sides[-1].append(line)
            line_number += len(sides) == 1
        else:
            line_number += 1
    return regions


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _readable(text: bytes) -> str:
    return text.decode(errors="replace")
