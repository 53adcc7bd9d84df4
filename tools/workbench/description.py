# SPDX-License-Identifier: GPL-2.0-only
"""Read one extension: a folder patches/<name>/, and the extension.toml in it.

The folder::

    patches/spi-timeout/
        extension.toml
        0001-xfrm-let-an-SPI-expire.patch    canonical, made on `base`
        0002-....patch
        since-v6.12/0001-....patch           replaces 0001 on v6.12 and later
        since-v6.12.90/0002-....patch        replaces 0002 on v6.12.90 and later 6.12.y
        resolutions/0001-....resolution      conflicts of 0001 as they were resolved before

``extension.toml`` (a key that is not listed here is refused)::

    # SPDX-License-Identifier: GPL-2.0-only
    id = "E2"                       # required; orders extensions that do not require each other
    summary = "one line"            # required
    base = "v5.10.262"              # tag of the canonical patches; required when there are any
    requires = ["other-extension"]  # applied before this one
    upstream_since = ["v4.19"]      # tags from which the feature needs no patch
    uapi = "what user space sees: attribute, sysctl, ... (one line)"
    reached_by = "who sets it: strongSwan option, ip command, ... (one line)"
    why = "what it is for, in a cover letter; else what its first patch begins with"

    [lint_not_applicable]           # files of kconfigs/lint it need not build with
    no-ipv6 = "the reason, in one line"

    [variants."v6.12"]              # exactly one table for each since-v6.12/ folder
    base = "v6.12.107"              # the tag this folder's patches were made on

    [[restore]]                     # files upstream removed, on which the patches work
    since = "v6.3"                  # the tags that have them no more
    from = "v6.1.187"               # an older tag, out of whose tree they come back
    paths = ["net/ipv4/removed.c"]

Patches are ``git format-patch --full-index`` mails named ``NNNN-subject.patch``;
the number is the order and, in a ``since-`` folder, says which one is
replaced (a number the canonical patches do not have is added). Of several
folders that speak for a tag the youngest wins, patch by patch. The bases are
what a 3-way merge starts from, so each must be a tag that 'kpw fetch' can
bring; patch N of a folder is understood to stand on patches 1..N-1 as they
are chosen for that folder's base. What a ``[[restore]]`` brings back is there
before patch 1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from workbench import journal
from workbench.declared import Extension, Restore, Variant
from workbench.errors import UsageError
from workbench.model import KernelTag
from workbench.treepath import outside

if TYPE_CHECKING:
    from pathlib import Path

DESCRIPTION = "extension.toml"
#: What is in it is told in :mod:`workbench.resolutions`.
RESOLUTIONS = "resolutions"
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PATCH_NAME = re.compile(r"(\d{4})-[^/]+\.patch")
_SINCE = "since-"


class _Variant(msgspec.Struct, forbid_unknown_fields=True):
    base: str


class _Restore(msgspec.Struct, forbid_unknown_fields=True):
    since: str
    origin: str = msgspec.field(name="from")
    paths: list[str]


class _Description(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of extension.toml."""

    id: str
    summary: str
    base: str | None = None
    requires: list[str] = []
    upstream_since: list[str] = []
    uapi: str = ""
    reached_by: str = ""
    why: str = ""
    variants: dict[str, _Variant] = {}
    lint_not_applicable: dict[str, str] = {}
    restore: list[_Restore] = []


def patch_number(path: Path) -> str:
    """Return the four digits a patch's file name starts with."""
    return path.name[:4]


def listing(folder: Path) -> list[Path]:
    """Return what is in a folder; UsageError when it cannot be read."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}",
            where=str(folder),
            next_step="run kpw from a whole checkout",
        ) from error


def check_name(folder: Path) -> None:
    """Raise UsageError when a folder's name is none for an extension."""
    if _NAME.fullmatch(folder.name) is None:
        raise UsageError(
            "an extension's name is lower case letters, digits and single dashes",
            where=str(folder),
            next_step="rename the folder",
        )


def load(folder: Path) -> Extension:
    """Read one extension's folder; UsageError names file and key.

    A save that was killed in it is finished first.
    """
    where = folder / DESCRIPTION
    check_name(folder)
    journal.finish(folder)
    read = _decode(where)
    patches = _patch_files(folder)
    if patches and read.base is None:
        raise fault(where, "base", "missing, though there are patches")
    if read.restore and not (patches or read.variants):
        raise fault(where, "restore", "there is no patch that works on the files")
    return Extension(
        name=folder.name,
        id=_filled(where, "id", read.id),
        summary=_filled(where, "summary", read.summary),
        base=None if read.base is None else _tag(where, "base", read.base),
        patches=patches,
        variants=_variants(folder, read),
        upstream_since=tuple(_tag(where, "upstream_since", text) for text in read.upstream_since),
        requires=tuple(read.requires),
        uapi=read.uapi,
        reached_by=read.reached_by,
        lint_not_applicable=tuple(
            (variant, _filled(where, f"lint_not_applicable.{variant}", reason))
            for variant, reason in read.lint_not_applicable.items()
        ),
        restores=_restores(where, read),
        why=read.why.strip("\n"),
    )


def _decode(where: Path) -> _Description:
    try:
        return msgspec.toml.decode(where.read_bytes(), type=_Description)
    except msgspec.ValidationError as error:
        table = _Restore if "`$.restore[" in str(error) else _Description
        keys = ", ".join(table.__struct_encode_fields__)
        raise UsageError(
            str(error).replace("`$.", "`"), where=str(where), next_step=f"the keys are {keys}"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"not TOML: {error}", where=str(where), next_step="mend that line"
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}", where=str(where), next_step="mend its permissions"
        ) from error


def _variants(folder: Path, read: _Description) -> tuple[Variant, ...]:
    """Match since- folders with their tables: each must have the other."""
    where = folder / DESCRIPTION
    bases = {
        _tag(where, f'variants."{since}"', since): _tag(
            where, f'variants."{since}".base', table.base
        )
        for since, table in read.variants.items()
    }
    found = []
    folders = (each for each in listing(folder) if each.is_dir() and each.name != RESOLUTIONS)
    for entry in sorted(folders):
        since = _since(entry)
        if since not in bases:
            raise fault(where, f'variants."{since}"', f"missing for the folder {entry.name}/")
        if read.base is None:
            raise fault(where, "base", f"missing, though there is {entry.name}/")
        base = bases.pop(since)
        if not base.includes(since):
            raise fault(where, f'variants."{since}".base', f"{since} does not speak for {base}")
        found.append(Variant(since, base, _patch_files(entry)))
    for since in bases:
        raise fault(where, f'variants."{since}"', f"there is no folder {_SINCE}{since}/")
    return tuple(sorted(found, key=lambda variant: variant.since))


def _restores(where: Path, read: _Description) -> tuple[Restore, ...]:
    """Check the [[restore]] tables; a file is in one of them, once."""
    named: set[str] = set()
    found = []
    for table in read.restore:
        key = f"restore since {table.since}"
        since, origin = (_tag(where, key, text) for text in (table.since, table.origin))
        if not origin < since:
            raise fault(where, key, f"from: {origin} is not older than {since}")
        if not table.paths:
            raise fault(where, key, "paths: at least one file is needed")
        for path in table.paths:
            if reason := outside(path):
                raise fault(where, key, f"paths: {path!r} {reason}")
            if path in named:
                raise fault(where, key, f"paths: {path!r} is named twice")
            named.add(path)
        found.append(Restore(since, origin, tuple(table.paths)))
    return tuple(sorted(found, key=lambda restore: restore.since))


def _since(folder: Path) -> KernelTag:
    if not folder.name.startswith(_SINCE):
        raise UsageError(
            "a folder in an extension is named since-<tag>",
            where=str(folder),
            next_step="rename it, as in since-v6.12",
        )
    return _tag(folder, "", folder.name.removeprefix(_SINCE))


def _patch_files(folder: Path) -> tuple[Path, ...]:
    by_number: dict[str, Path] = {}
    for path in sorted(folder.glob("*.patch")):
        if _PATCH_NAME.fullmatch(path.name) is None:
            raise UsageError(
                "a patch's file name starts with its number",
                where=str(path),
                next_step="name it NNNN-subject.patch, as git format-patch does",
            )
        other = by_number.setdefault(patch_number(path), path)
        if other != path:
            raise UsageError(
                f"{other.name} has the same number", where=str(path), next_step="renumber one"
            )
    return tuple(by_number.values())


def _tag(where: Path, key: str, text: str) -> KernelTag:
    try:
        return KernelTag.parse(text)
    except UsageError as error:
        raise fault(where, key, error.what) from error


def _filled(where: Path, key: str, text: str) -> str:
    if not text.strip() or "\n" in text.strip():
        raise fault(where, key, "one line is needed")
    return text.strip()


def fault(where: Path, key: str, what: str) -> UsageError:
    """Say what is wrong with a key of an extension.toml."""
    return UsageError(
        f"{key}: {what}" if key else what, where=str(where), next_step="mend it there"
    )
