# SPDX-License-Identifier: GPL-2.0-only
"""What a folder under patches/ declares: the frozen values its extension.toml becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.model import KernelTag


@dataclass(frozen=True)
class Extension:
    """One folder under patches/, as its extension.toml describes it.

    ``patches`` are the canonical patch files in order, ``base`` the tag they
    were made on. ``variants`` replace some of them from a tag on, oldest
    first. ``upstream_since`` are the tags from which the feature needs no
    patch. ``requires`` names other extensions that must be applied before.
    ``restores`` are files upstream removed and it works on.
    ``lint_not_applicable`` are the files of kconfigs/lint it need not build
    with, each with the reason. ``why`` is what a cover letter says it is for.
    """

    name: str
    id: str
    summary: str
    base: KernelTag | None
    patches: tuple[Path, ...] = ()
    variants: tuple[Variant, ...] = ()
    upstream_since: tuple[KernelTag, ...] = ()
    requires: tuple[str, ...] = ()
    uapi: str = ""
    reached_by: str = ""
    lint_not_applicable: tuple[tuple[str, str], ...] = ()
    restores: tuple[Restore, ...] = ()
    why: str = ""

    def is_upstream(self, tag: KernelTag) -> bool:
        """Tell whether this kernel has the feature without a patch."""
        return any(tag.includes(since) for since in self.upstream_since)

    def has_patches_for(self, tag: KernelTag) -> bool:
        """Tell whether there is anything to apply on this kernel."""
        return bool(self.patches) and not self.is_upstream(tag)


@dataclass(frozen=True)
class Variant:
    """A ``since-<tag>`` folder: patches that replace those of the same number."""

    since: KernelTag
    base: KernelTag
    patches: tuple[Path, ...]


@dataclass(frozen=True)
class Restore:
    """A ``[[restore]]`` table: from ``since`` on, bring files back as ``origin`` has them."""

    since: KernelTag
    origin: KernelTag
    paths: tuple[str, ...]
