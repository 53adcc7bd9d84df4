# SPDX-License-Identifier: GPL-2.0-only
"""patches/kernels.toml: which kernels are supported, and where others come from."""

from __future__ import annotations

import itertools
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from workbench.errors import UsageError
from workbench.model import KernelTag

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.paths import Paths

_FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~+-]*$")]
_Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
_Size = Annotated[int, msgspec.Meta(gt=0)]

#: What each origin's tarball is, in one phrase for the report and the commit's message.
ORIGINS = {
    "debian": "Debian archive, orig tarball (without a few firmware files)",
    "kernel.org": "kernel.org, signed sums",
}


@dataclass(frozen=True)
class SupportedKernel:
    """One entry: ``size`` in bytes, ``origin`` a key of :data:`ORIGINS`."""

    tag: KernelTag
    origin: str
    tarball: str
    size: int
    sha256: str
    default: bool


class Debian(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The Debian archive: suites in the order they are asked, pool directories, keyring file."""

    suites: tuple[str, ...]
    pool: tuple[str, ...]
    keyring: str


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The kernel's own download site."""

    address: str


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tag: str
    tarball: _FileName
    sha256: _Sha256
    size: _Size
    origin: Literal["debian", "kernel.org"]
    default: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kernel: Annotated[tuple[_Entry, ...], msgspec.Meta(min_length=1)]
    site: Site
    debian: Debian


@dataclass(frozen=True)
class Catalogue:
    """The whole file; ``supported`` is oldest first."""

    supported: tuple[SupportedKernel, ...]
    site: Site
    debian: Debian

    @property
    def default(self) -> SupportedKernel:
        """The one that is meant when no tag is named."""
        return next(kernel for kernel in self.supported if kernel.default)

    def find(self, tag: KernelTag) -> SupportedKernel | None:
        """Return the entry of a tag."""
        return next((kernel for kernel in self.supported if kernel.tag == tag), None)


def load(paths: Paths) -> Catalogue:
    """Read the file; UsageError names it and the key that cannot be taken."""
    file = paths.patches / "kernels.toml"
    try:
        data = msgspec.convert(tomllib.loads(file.read_text()), _File)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            f"cannot be read: {error}", where=str(file), next_step="mend the file"
        ) from error
    except msgspec.ValidationError as error:
        raise UsageError(
            _with_tag(str(error), file), where=str(file), next_step="mend that key"
        ) from error
    supported = tuple(_supported(entry, file) for entry in data.kernel)
    _check(supported, file)
    return Catalogue(supported, data.site, data.debian)


def _supported(entry: _Entry, file: Path) -> SupportedKernel:
    try:
        tag = KernelTag.parse(entry.tag)
    except UsageError as error:
        raise UsageError(error.what, where=f"{file} tag", next_step=error.next_step) from None
    return SupportedKernel(
        tag, entry.origin, entry.tarball, entry.size, entry.sha256, entry.default
    )


def _check(supported: tuple[SupportedKernel, ...], file: Path) -> None:
    tags = [kernel.tag for kernel in supported]
    if any(late <= early for early, late in itertools.pairwise(tags)):
        raise UsageError(
            "the kernels are not oldest first, or one is twice",
            where=str(file),
            next_step="order them by age, each once",
        )
    if sum(kernel.default for kernel in supported) != 1:
        raise UsageError(
            "exactly one kernel must say 'default = true'",
            where=str(file),
            next_step="say it of one",
        )


def _with_tag(message: str, file: Path) -> str:
    """Put the tag beside msgspec's ``$.kernel[3].sha256``: nobody counts entries."""
    match = re.search(r"\$\.kernel\[(\d+)\]", message)
    if match is None:
        return message
    entry = tomllib.loads(file.read_text())["kernel"][int(match[1])]
    tag = entry.get("tag") if isinstance(entry, dict) else None
    return f"{message} ({tag})" if tag else message
