# SPDX-License-Identifier: GPL-2.0-only
"""The names of kernels that mean something here: supported, imported, the user's own.

Nobody is asked: what a source elsewhere has is not among them.
"""

from __future__ import annotations

import contextlib
import difflib
from typing import TYPE_CHECKING

from workbench import catalogue
from workbench.errors import UsageError
from workbench.gitstore import Store
from workbench.model import KernelTag
from workbench.release import trailers

if TYPE_CHECKING:
    from workbench.catalogue import SupportedKernel
    from workbench.model import Kernel
    from workbench.paths import Paths


def known(paths: Paths) -> tuple[str, ...]:
    """Return the supported kernels, oldest first, then the others of the store by name."""
    names = [str(each.tag) for each in catalogue.load(paths).supported]
    if (paths.store / "HEAD").exists():  # looking shall not make a store
        names += sorted(Store.open(paths).names())
    return tuple(dict.fromkeys(names))


def parse(paths: Paths, name: str) -> KernelTag:
    """Read a release's name; UsageError for one that is none, with the nearest known."""
    try:
        return KernelTag.parse(name)
    except UsageError as error:
        near: list[str] = []
        with contextlib.suppress(UsageError):  # the name is what is wrong, not what could help
            near = difflib.get_close_matches(name, known(paths), n=1)
        hint = f"did you mean {near[0]!r}? Else " if near else ""
        raise UsageError(error.what, next_step=hint + error.next_step) from error


def here(paths: Paths, name: str) -> Kernel | None:
    """Return a kernel of the store by its name, however its tag is spelt; None if not there.

    One whose tarball is not the one patches/kernels.toml pins now is not the
    kernel that is meant. UsageError for a name no source could know.
    """
    if not (paths.store / "HEAD").exists():
        parse(paths, name)
        return None
    store = Store.open(paths)
    found = store.kernel(name)
    tag = parse(paths, name) if found is None else found.tag
    if found is None or found.name == str(tag):
        return imported(store, tag, catalogue.load(paths).find(tag))
    return found


def imported(store: Store, tag: KernelTag, pinned: SupportedKernel | None) -> Kernel | None:
    """Return the imported kernel of a tag, unless the catalogue now pins another tarball."""
    kernel = store.kernel(str(tag))
    if kernel and pinned and trailers(store.cat_file(kernel.commit)).get("Sha256") != pinned.sha256:
        return None
    return kernel
