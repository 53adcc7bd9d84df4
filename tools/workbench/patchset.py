# SPDX-License-Identifier: GPL-2.0-only
"""A rebased series as patch files: mails that ``git am`` takes, or a quilt series.

Either way they hold every commit between the kernel and the result, the
restored files' too. Read again and applied to the kernel, they must come to
the tree the rebase came to.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench.errors import InfraError, UsageError
from workbench.exportfolder import QUILT_SERIES
from workbench.gitapply import Entry
from workbench.growing import GrowingTree
from workbench.patchfile import parse_patch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from workbench.addressees import Addressees
    from workbench.gitstore import Store
    from workbench.model import RebasedSeries

_WORDS: Final = ("--full-index", "--no-signature", "--no-attach", "--no-base", "--no-thread")
_GONE: Final = "000000"


def mails(
    store: Store, ported: RebasedSeries, version: int, addressees: Addressees | None
) -> dict[str, bytes]:
    """Return the numbered patches by file name, as ``git format-patch -v`` names them.

    UsageError for a text that ``git am`` would change.
    """
    words = ["--numbered", *([f"-v{version}"] if version > 1 else [])]
    if addressees is not None:
        words += [f"--to={each}" for each in addressees.to]
        words += [f"--cc={each}" for each in addressees.cc]
    files = _formatted(store, ported, words)
    for name, data in files.items():
        if b"\r\n" in data:
            raise UsageError(
                "a line ends in CR LF, which git am takes away",
                where=name,
                next_step="export it with --quilt",
            )
    return files


def quilt(store: Store, ported: RebasedSeries) -> dict[str, bytes]:
    """Return the patches and the file ``series``; no renames, which patch(1) may not know."""
    files = _formatted(store, ported, ["--no-numbered", "--no-renames"])
    kernel = ported.kernel
    head = f"# {' '.join(ported.extensions)} on {kernel.name}\n# base-commit: {kernel.commit}\n"
    listed = "".join(f"{name}\n" for name in files)
    return {QUILT_SERIES: (head + listed).encode(), **files}


def check(store: Store, ported: RebasedSeries, files: Mapping[str, bytes]) -> None:
    """Apply the patches to the kernel again; InfraError when another tree comes out."""
    wanted = _differing(store, ported)
    changed: dict[str, Entry | None] = {}
    with tempfile.TemporaryDirectory(prefix="kpw-export-") as scratch:
        kernel = GrowingTree(store, ported.kernel.tree, Path(scratch))
        tree = GrowingTree(store, ported.kernel.tree, Path(scratch))
        for name in (name for name in files if name.endswith(".patch")):
            applied, changes = tree.apply(parse_patch(Path(name), files[name]))
            if not applied.applied:
                raise InfraError(f"does not apply to {ported.kernel.name} again", where=name)
            changed |= changes
    found = {path: entry for path, entry in changed.items() if entry != kernel.file(path)}
    if found != wanted:
        odd = min(path for path in {*found, *wanted} if found.get(path) != wanted.get(path))
        what = f"the exported patches come to another {odd} than the rebase"
        raise InfraError(what, where=ported.kernel.name)


def _formatted(store: Store, ported: RebasedSeries, words: Iterable[str]) -> dict[str, bytes]:
    span = f"{ported.kernel.commit}..{ported.commit}"
    with tempfile.TemporaryDirectory(prefix="kpw-export-") as name:
        store.git("format-patch", "--quiet", *_WORDS, *words, "--output-directory", name, span)
        return {path.name: path.read_bytes() for path in sorted(Path(name).iterdir())}


def _differing(store: Store, ported: RebasedSeries) -> dict[str, Entry | None]:
    """Return the files in which the result differs from the kernel."""
    words = ("diff-tree", "-r", "-z", "--no-renames", ported.kernel.tree, ported.tree)
    parts = store.git(*words).split("\0")
    found: dict[str, Entry | None] = {}
    for head, path in zip(parts[0::2], parts[1::2], strict=False):
        _, mode, _, oid, _ = head.split(" ")
        found[path] = None if mode == _GONE else Entry(mode, oid)
    return found
