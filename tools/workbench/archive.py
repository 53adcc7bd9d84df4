# SPDX-License-Identifier: GPL-2.0-only
"""What the Debian archive has of Linux, and where.

The addresses are those apt uses on this machine. The chain is: InRelease,
signed by a key of the archive keyring; Sources.xz, by its digest in there; the
tarball's digest, out of that. Indices that passed are kept, so that a second
question needs no network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import lzma
import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from workbench import apt, atomic, download
from workbench.errors import InfraError
from workbench.model import KernelTag
from workbench.signature import verified

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.catalogue import Debian
    from workbench.paths import Paths
    from workbench.progress import Progress

_FRESH_SECONDS = 6 * 3600.0
_INRELEASE_LIMIT = 4 << 20
_SOURCES = "main/source/Sources.xz"
_PACKAGE = re.compile(rb"^Package: linux(?:-\d+\.\d+)?$", re.MULTILINE)
_TARBALL = re.compile(r"(linux(?:-\d+\.\d+)?)_(\d+\.\d+(?:\.\d+)?)(?:~(rc\d+))?\.orig\.tar\.xz")


class Offer(msgspec.Struct, frozen=True):
    """One tarball a suite lists; ``size`` in bytes. Main package: ``linux_…``."""

    tag: str
    name: str
    url: str
    sha256: str
    size: int
    suite: str
    proxy: str = ""

    @property
    def is_main_package(self) -> bool:
        """Tell apart linux from linux-6.12: the latter's tarball of a release is another one."""
        return self.name.startswith("linux_")

    def wanted(self) -> download.Wanted:
        """Return it as something to download."""
        return download.Wanted(self.name, self.url, self.sha256, self.size, self.proxy)


class Index(msgspec.Struct, frozen=True):
    """What one suite lists, out of the InRelease with this digest; ``asked`` in Unix seconds."""

    suite: str
    inrelease: str
    asked: float
    offers: tuple[Offer, ...]


def known(paths: Paths) -> tuple[Offer, ...]:
    """Return every offer of the kept indices; asks nobody."""
    return tuple(offer for index in _all_kept(paths) for offer in index.offers)


def offers(
    paths: Paths, debian: Debian, tag: KernelTag, faults: list[InfraError], progress: Progress
) -> Iterator[Offer]:
    """Give every place a release can be had from, the likeliest first.

    Kept indices come first and cost nothing; a suite is only asked when the
    caller wants another offer. Suites that cannot be asked are told in ``faults``.
    """
    seen: set[str] = set()
    second: list[Offer] = []
    for index in _indices(paths, debian, faults, progress):
        for offer in index:
            if offer.tag != str(tag) or offer.url in seen:
                continue
            seen.add(offer.url)
            if offer.is_main_package:
                yield offer
            else:
                second.append(offer)
    yield from second


def refresh(
    paths: Paths, debian: Debian, faults: list[InfraError], progress: Progress
) -> tuple[Offer, ...]:
    """Ask every suite now, and return what they all list."""
    for _ in _ask((paths, debian, 0.0), faults, progress):
        pass
    return known(paths)


def _indices(
    paths: Paths, debian: Debian, faults: list[InfraError], progress: Progress
) -> Iterator[tuple[Offer, ...]]:
    yield known(paths)
    fresh = {index.suite for index in _all_kept(paths) if _is_fresh(index, _FRESH_SECONDS)}
    if not fresh.issuperset(debian.suites):
        for index in _ask((paths, debian, _FRESH_SECONDS), faults, progress):
            yield index.offers


def _ask(
    what: tuple[Paths, Debian, float], faults: list[InfraError], progress: Progress
) -> Iterator[Index]:
    paths, debian, fresh = what
    archives = apt.bases()
    if not archives:
        faults.append(
            InfraError(
                "apt on this machine knows no Debian archive",
                where="apt-get indextargets",
                next_step="name a Debian archive in /etc/apt/sources.list.d, or use --repo",
            )
        )
    silent: set[str] = set()
    for suite in debian.suites:
        for base in archives:
            if base.security != suite.endswith("-security") or base.url in silent:
                continue
            try:
                yield _index((paths, fresh), base, suite, Path(debian.keyring), progress)
            except download.UnreachableError as error:
                silent.add(base.url)
                faults.append(error)
            except InfraError as error:
                faults.append(error)


def _is_fresh(index: Index, seconds: float) -> bool:
    return 0 <= time.time() - index.asked < seconds


def _index(
    room: tuple[Paths, float], base: apt.Base, suite: str, keyring: Path, progress: Progress
) -> Index:
    """Return what a suite lists: kept if fresh, else asked for and checked."""
    paths, seconds = room
    host = re.sub(r"[^A-Za-z0-9.]+", "-", base.url.partition("//")[2]).strip("-")
    file = _room(paths) / f"{suite}@{host}.json"
    kept = _kept(file)
    if kept and _is_fresh(kept, seconds):
        return kept
    progress.step(f"asking the Debian archive for {suite}")
    try:
        signed = download.get(f"{base.url}dists/{suite}/InRelease", _INRELEASE_LIMIT, base.proxy)
    except download.MissingError:
        signed = b""  # this archive has no such suite (any more): worth remembering too
    name = hashlib.sha256(signed).hexdigest()
    if kept and kept.inrelease == name:
        index = msgspec.structs.replace(kept, asked=time.time())
    elif not signed:
        index = Index(suite, name, time.time(), ())
    else:
        text = verified(signed, keyring, f"{suite}/InRelease", paths.downloads)
        found = _sources(paths, base, suite, text, progress)
        index = Index(suite, name, time.time(), found)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(file, msgspec.json.encode(index))
    return index


def _sources(
    paths: Paths, base: apt.Base, suite: str, text: str, progress: Progress
) -> tuple[Offer, ...]:
    from debian.deb822 import Release

    release = Release(text)
    if suite not in {release.get("Suite"), release.get("Codename")}:
        raise InfraError(
            "is signed for another suite",
            where=f"{base.url}dists/{suite}/InRelease",
            next_step="name another mirror in apt's sources",
        )
    if _has_expired(release.get("Valid-Until")):
        # Taken all the same: expiry keeps an upgrade from being held back, but
        # here a release is asked for by its number, and an old list is still true.
        progress.note(
            f"{suite}: this mirror's list is out of date (since {release['Valid-Until']})"
        )
    row = next((row for row in release.get("SHA256", ()) if row["name"] == _SOURCES), None)
    if row is None:
        return ()
    wanted = download.Wanted(
        f"Sources-{suite}.xz",
        f"{base.url}dists/{suite}/main/source/by-hash/SHA256/{row['sha256']}",
        row["sha256"],
        int(row["size"]),
        base.proxy,
    )
    try:
        file = download.fetch(wanted, paths.downloads, progress)
    except download.MissingError:
        url = f"{base.url}dists/{suite}/{_SOURCES}"
        file = download.fetch(dataclasses.replace(wanted, url=url), paths.downloads, progress)
    found = tuple(parse_sources(file, base, suite))
    file.unlink()
    return found


def _has_expired(until: str | None) -> bool:
    return bool(until) and parsedate_to_datetime(str(until)) < datetime.now(UTC)


def parse_sources(file: Path, base: apt.Base, suite: str) -> Iterator[Offer]:
    """Give the kernel tarballs a Sources.xz lists, each once.

    Only the kernel's paragraphs are parsed: there are 70 MB of others.
    """
    from debian.deb822 import Sources

    seen = set()
    for paragraph in _paragraphs(file):
        source = Sources(paragraph)
        for row in source.get("Checksums-Sha256", ()):
            match = _TARBALL.fullmatch(row["name"])
            if match is None or row["sha256"] in seen:
                continue
            seen.add(row["sha256"])
            version = match[2] + (f"-{match[3]}" if match[3] else "")
            yield Offer(
                str(KernelTag.parse(version)),
                row["name"],
                f"{base.url}{source['Directory']}/{row['name']}",
                row["sha256"],
                int(row["size"]),
                suite,
                base.proxy,
            )


def _paragraphs(file: Path) -> Iterator[bytes]:
    lines: list[bytes] = []
    with lzma.open(file) as stream:
        for line in stream:
            if line != b"\n":
                lines.append(line)
                continue
            if _PACKAGE.match(lines[0] if lines else b""):
                yield b"".join(lines)
            lines = []
    if lines and _PACKAGE.match(lines[0]):
        yield b"".join(lines)


def gone(paths: Paths) -> frozenset[str]:
    """Return the addresses that were listed and did not answer with the file."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(_gone_file(paths).read_bytes(), type=frozenset[str])
    return frozenset()


def remember(paths: Paths, url: str, *, is_gone: bool) -> None:
    """Keep what became of a listed address, for who asks without a network."""
    before = gone(paths)
    after = before | {url} if is_gone else before - {url}
    if after != before:
        file = _gone_file(paths)
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(file, msgspec.json.encode(sorted(after)))


def _gone_file(paths: Paths) -> Path:
    return _room(paths) / "gone"


def _room(paths: Paths) -> Path:
    return paths.cache / "archive"


def _all_kept(paths: Paths) -> list[Index]:
    indices = [_kept(file) for file in sorted(_room(paths).glob("*.json"))]
    return [index for index in indices if index]


def _kept(file: Path) -> Index | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Index)
    except (OSError, msgspec.MsgspecError):
        return None
