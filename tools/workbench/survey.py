# SPDX-License-Identifier: GPL-2.0-only
"""What is known of every kernel without asking anybody: for ``kpw kernels``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from workbench import archive
from workbench.catalogue import ORIGINS, Catalogue, SupportedKernel, load
from workbench.gitstore import Store
from workbench.model import KernelTag
from workbench.release import trailers

if TYPE_CHECKING:
    from workbench.paths import Paths


class State(StrEnum):
    """How far a kernel is on its way into the store."""

    IMPORTED = "imported"
    DOWNLOADED = "downloaded"
    PARTLY = "partly downloaded"
    AVAILABLE = "available"
    GONE = "not to be had"


@dataclass(frozen=True)
class Known:
    """One kernel: ``size`` in bytes of its tarball, 0 when nobody said."""

    tag: KernelTag
    source: str
    state: State
    size: int = 0
    supported: bool = False
    default: bool = False


def survey(paths: Paths) -> tuple[Known, ...]:
    """Return every kernel that is supported, imported, or in a kept index; oldest first."""
    catalogue, store = load(paths), Store.open(paths)
    gone = archive.gone(paths)
    found: dict[KernelTag, Known] = {}
    for offer in archive.known(paths):
        tag = KernelTag.parse(offer.tag)
        state = State.GONE if offer.url in gone else _on_disk(paths, offer.name)
        known = Known(tag, f"Debian archive, {offer.suite}", state, offer.size)
        if tag not in found or found[tag].state is State.GONE:
            found[tag] = known
    for kernel in catalogue.supported:
        found[kernel.tag] = _supported(paths, kernel)
    for name, commit in store.tags().items():
        tag = KernelTag.parse(name)
        found[tag] = _imported(store, commit, found.get(tag), (tag, catalogue))
    return tuple(found[tag] for tag in sorted(found))


def _supported(paths: Paths, kernel: SupportedKernel) -> Known:
    state = _on_disk(paths, kernel.tarball)
    source = f"{ORIGINS[kernel.origin].partition(',')[0]}, pinned"
    return Known(kernel.tag, source, state, kernel.size, supported=True, default=kernel.default)


def _imported(
    store: Store, commit: str, before: Known | None, entry: tuple[KernelTag, Catalogue]
) -> Known:
    tag, catalogue = entry
    said = trailers(store.cat_file(commit))
    pinned = catalogue.find(tag)
    if before is not None and pinned is not None and said.get("Sha256") != pinned.sha256:
        return before  # the import is of another tarball than is pinned now
    return Known(
        tag,
        said.get("Origin", "").partition(",")[0] + (", pinned" if pinned else ""),
        State.IMPORTED,
        before.size if before else 0,
        supported=pinned is not None,
        default=pinned is not None and pinned.default,
    )


def _on_disk(paths: Paths, name: str) -> State:
    if (paths.downloads / name).exists():
        return State.DOWNLOADED
    return State.PARTLY if (paths.downloads / f"{name}.part").exists() else State.AVAILABLE
