# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own download site: tarballs against its signed sums.

The sums are only as good as the keyring that checks them, and none is
installed with Debian: the user names one by ``$KPW_KERNEL_KEYRING``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import download
from workbench.signature import verified

if TYPE_CHECKING:
    from workbench.catalogue import Site
    from workbench.model import KernelTag
    from workbench.paths import Paths

_SUMS_LIMIT = 8 << 20
_NOT_FOUND = 404
KEYRING = "KPW_KERNEL_KEYRING"


def keyring() -> Path | None:
    """Return the keyring the user names, None when there is none."""
    named = os.environ.get(KEYRING)
    return Path(named).expanduser() if named else None


def tarball(tag: KernelTag) -> str:
    """Return the name the site gives a release's tarball."""
    return f"linux-{str(tag)[1:]}.tar.xz"


def url(site: Site, tag: KernelTag) -> str:
    """Return where the site has it."""
    return f"{site.address}/v{tag.major}.x/{tarball(tag)}"


def offer(paths: Paths, site: Site, tag: KernelTag, keys: Path) -> download.Wanted:
    """Return what to download for a release.

    MissingError when the signed sums do not list it; InfraError for a bad signature.
    """
    sums = f"{site.address}/v{tag.major}.x/sha256sums.asc"
    text = verified(download.get(sums, _SUMS_LIMIT), keys, "sha256sums.asc", paths.downloads)
    name = re.escape(tarball(tag))
    match = re.search(rf"^([0-9a-f]{{64}})  {name}$", text, re.MULTILINE)
    if match is None:
        raise download.MissingError(url(site, tag), _NOT_FOUND)
    return download.Wanted(tarball(tag), url(site, tag), match[1])


def skipped() -> str:
    """Say in one phrase why the site is not asked."""
    return f"kernel.org (skipped: ${KEYRING} names no keyring)"
