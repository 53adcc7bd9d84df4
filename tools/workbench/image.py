# SPDX-License-Identifier: GPL-2.0-only
"""The guest image: a read-only erofs in the cache, known by what it is made of."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import filelock
import msgspec

from workbench import machine, process, userland
from workbench.errors import InfraError

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.paths import Paths
    from workbench.progress import Progress

# Raise it when the code makes another image of the same inputs.
_FORMAT = 2
_ROOM = 1 << 30
# Other checkouts may use other ones.
KEPT = 4
_EPOCH = 1_700_000_000


@dataclass(frozen=True)
class GuestImage:
    """An image in the cache.

    ``root`` is the erofs, ``lock`` lists what is in it (package=version),
    ``digest`` is the sha256 of ``root``. ``changes`` say where the archive no
    longer had what the repository's lock names.
    """

    root: Path
    lock: Path
    digest: str
    changes: tuple[str, ...] = ()


class _Record(msgspec.Struct, frozen=True):
    sha256: str
    size: int


def lock_path(paths: Paths, arch: str) -> Path:
    """Return the repository's lock of an architecture's image."""
    return paths.qemu / f"{arch}.lock"


def ensure_image(paths: Paths, progress: Progress, arch: str = "x86_64") -> GuestImage:
    """Return the image of the repository's recipe and lock, made if it is not in the cache.

    InfraError when the archive, the disk or mmdebstrap fails.
    """
    folder = paths.images / lookup_key(paths, arch)
    paths.images.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(paths.images / ".lock"):
        found = _cached(paths, folder, arch)
        if found is not None:
            return found
        _sweep(paths.images)
        _check_room(paths.images)
        progress.step("making the guest image (once, about a minute)")
        _make(paths, folder, arch, pins=read_lock(lock_path(paths, arch)))
        _prune(paths.images)
        made = _cached(paths, folder, arch)
    if made is None:
        raise InfraError(
            "the image changed while it was made", where=str(folder), next_step="run it again"
        )
    for change in made.changes:
        progress.note(f"guest image differs from its lock: {change}")
    return made


def relock(paths: Paths, progress: Progress, arch: str = "x86_64") -> Path:
    """Write the repository's lock anew from what the archive has today; return it."""
    paths.images.mkdir(parents=True, exist_ok=True)
    lock = lock_path(paths, arch)
    with filelock.FileLock(paths.images / ".lock"):
        _sweep(paths.images)
        _check_room(paths.images)
        progress.step("making the guest image from the newest packages")
        folder = paths.images / f".new-{os.getpid()}"
        _make(paths, folder, arch, pins={})
        shutil.copyfile(folder / "packages.lock", lock)
        target = paths.images / lookup_key(paths, arch)
        shutil.rmtree(target, ignore_errors=True)
        folder.replace(target)
    return lock


def lookup_key(paths: Paths, arch: str) -> str:
    """Name the image by everything it is made from."""
    recipe = userland.parse_recipe(paths.qemu / "image.toml")
    inputs: list[bytes] = [str(_FORMAT).encode(), machine.load(paths, arch).debian.encode()]
    sources = (paths.qemu / name for name in ("image.toml", "init.c", "preload.py"))
    files = (*sources, lock_path(paths, arch))
    inputs += [path.read_bytes() if path.exists() else b"" for path in files]
    inputs += [f"{name}={userland.python_version(name)}".encode() for name in recipe.python]
    parts = [hashlib.sha256(data).digest() for data in inputs]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:20]


def read_lock(path: Path) -> dict[str, str]:
    """Read package -> version; an absent lock pins nothing."""
    if not path.exists():
        return {}
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {name: version for name, equals, version in map(_split, lines) if equals}


def _split(line: str) -> tuple[str, str, str]:
    return line.strip().partition("=")


def write_lock(path: Path, versions: dict[str, str]) -> None:
    """Write package=version lines, sorted."""
    head = "# SPDX-License-Identifier: GPL-2.0-only\n# Written by 'kpw image --relock'.\n"
    body = "".join(f"{package}={version}\n" for package, version in sorted(versions.items()))
    path.write_text(head + body)


def compare(locked: dict[str, str], actual: dict[str, str]) -> tuple[str, ...]:
    """Say in one line each how an image differs from the lock; nothing without a lock."""
    if not locked:
        return ()
    return tuple(
        f"{package} {locked.get(package, 'absent')} -> {actual.get(package, 'absent')}"
        for package in sorted(locked.keys() | actual.keys())
        if locked.get(package) != actual.get(package)
    )


def file_digest(path: Path) -> str:
    """Return a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached(paths: Paths, folder: Path, arch: str) -> GuestImage | None:
    """Return the image if it is whole; a damaged one is removed."""
    root, lock = folder / "root.erofs", folder / "packages.lock"
    try:
        record = msgspec.json.decode((folder / "image.json").read_bytes(), type=_Record)
        whole = root.stat().st_size == record.size and file_digest(root) == record.sha256
    except (OSError, msgspec.MsgspecError):
        whole = False
    if not whole:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    changes = compare(read_lock(lock_path(paths, arch)), read_lock(lock))
    return GuestImage(root, lock, record.sha256, changes)


def _sweep(images: Path) -> None:
    """Remove what a killed run left; the caller holds the lock, so nobody is at work."""
    for left in (*images.glob(".tmp-*"), *images.glob(".new-*")):
        shutil.rmtree(left, ignore_errors=True)


def _prune(images: Path) -> None:
    """Remove all but the youngest images."""
    ages = sorted((path.stat().st_mtime_ns, path.parent) for path in images.glob("*/image.json"))
    for _, folder in ages[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def _check_room(where: Path) -> None:
    free = shutil.disk_usage(where).free
    if free < _ROOM:
        raise InfraError(
            f"{free >> 20} MiB free, the guest image needs {_ROOM >> 20} MiB to be made",
            where=str(where),
            next_step="make room, or name another cache directory in KPW_CACHE",
        )


def _make(paths: Paths, folder: Path, arch: str, *, pins: dict[str, str]) -> None:
    """Make the image in a directory beside ``folder`` and rename it there when it is whole."""
    work = paths.images / f".tmp-{os.getpid()}"
    log = paths.images / "image.log"
    log.unlink(missing_ok=True)
    work.mkdir()
    # apt reads what is in it as a user of its own
    work.chmod(0o755)
    description = machine.load(paths, arch)
    plan = userland.Plan(
        recipe=userland.parse_recipe(paths.qemu / "image.toml"),
        arch=description.debian,
        init=paths.qemu / "init.c",
        preload=paths.qemu / "preload.py",
        compiler=description.compiler,
        pins=pins,
        log=log,
    )
    try:
        versions = userland.make(plan, work / "root")
        whole = work / "whole"
        whole.mkdir()
        write_lock(whole / "packages.lock", versions)
        _pack(work / "root", whole / "root.erofs", log)
        size = (whole / "root.erofs").stat().st_size
        record = _Record(file_digest(whole / "root.erofs"), size)
        (whole / "image.json").write_bytes(msgspec.json.encode(record))
        whole.replace(folder)
    except OSError as error:
        raise InfraError(
            f"{error.strerror or error}", where=str(error.filename or work), next_step=f"see {log}"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _pack(root: Path, into: Path, log: Path) -> None:
    """Write the erofs, the same bytes for the same tree."""
    fixed = uuid.uuid5(uuid.NAMESPACE_OID, "kpw guest image")
    argv = [
        "mkfs.erofs",
        "-d0",
        "-zlz4",
        f"-T{_EPOCH}",
        f"-U{fixed}",
        "--all-root",
        str(into),
        str(root),
    ]
    done = process.run(argv, log=log, check=False)
    if done.returncode != 0 or not into.exists():
        raise InfraError(
            userland.blame(log.read_text(errors="replace")),
            where="mkfs.erofs",
            next_step=f"see {log}",
        )
