# SPDX-License-Identifier: GPL-2.0-only
"""Finished kernels: ``kernels/<key>/{vmlinux,config,build.log,build.json}``, and their modules.

A folder appears whole, by one rename. Its files are checked by size and time
at each use, and by digest when these are not what was written. Beside them
``<key>.failed.json`` remembers why the last build of that key came to nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from workbench import atomic
from workbench.model import BuiltKernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.model import BuildFailure, Kernel
    from workbench.paths import Paths

_FILES = ("vmlinux", "config")
_LOG = "build.log"


class _File(msgspec.Struct, frozen=True):
    sha256: str
    size: int
    mtime_ns: int


class Record(msgspec.Struct, frozen=True):
    """build.json: what a finished kernel is, and the digests of its files.

    ``objects`` counts the files compiled, 0 when the build was incremental.
    """

    key: str
    tree: str
    flavour: str
    release: str
    seconds: float
    objects: int
    toolchain: str
    files: dict[str, _File] = {}


class Failure(msgspec.Struct, frozen=True):
    """Why a build came to nothing: one line, a quotation, and the log, which others overwrite."""

    reason: str
    excerpt: str
    log: str


def find(paths: Paths, key: str, kernel: Kernel) -> BuiltKernel | None:
    """Return a finished kernel; None when there is none, or its files are not what was built."""
    folder = paths.kernels / key
    record = _read(folder)
    if record is None or record.key != key:
        return None
    named = {*_FILES, *record.files}
    if not all(_is_intact(folder / name, record.files.get(name)) for name in named):
        return None
    return _built(folder, record, kernel, cached=True)


def built_at(built: BuiltKernel) -> float:
    """Return when a finished kernel was made, in seconds since 1970."""
    return _time(built.vmlinux.with_name("build.json"))


def remember_failure(paths: Paths, key: str, failure: BuildFailure) -> None:
    """Keep why a build failed, for who asks later; the next one is tried all the same."""
    paths.kernels.mkdir(parents=True, exist_ok=True)
    kept = Failure(failure.reason, failure.excerpt, str(failure.log or ""))
    atomic.write(_failure(paths, key), msgspec.json.encode(kept))


def last_failure(paths: Paths, key: str) -> tuple[Failure, float] | None:
    """Return why the last build of a key failed and when (seconds since 1970), None if none did."""
    file = _failure(paths, key)
    try:
        return msgspec.json.decode(file.read_bytes(), type=Failure), _time(file)
    except (OSError, msgspec.MsgspecError):
        return None


def keep(paths: Paths, kernel: Kernel, record: Record, files: dict[str, Path]) -> BuiltKernel:
    """Copy a build's files (by their names here) into the cache and return it.

    Modules are those in ``modules/``.
    """
    paths.kernels.mkdir(parents=True, exist_ok=True)
    folder = paths.kernels / record.key
    with _new_folder(paths.kernels, record.key) as young:
        for name, origin in files.items():
            (young / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(origin, young / name)
        described = {name: _describe(young / name) for name in files if name != _LOG}
        whole = msgspec.structs.replace(record, files=described)
        (young / "build.json").write_bytes(msgspec.json.format(msgspec.json.encode(whole)))
        young.chmod(0o755)
        _replace(young, folder)
    _failure(paths, record.key).unlink(missing_ok=True)
    return _built(folder, whole, kernel, cached=False)


def usual_objects(paths: Paths, flavour: str, default: int) -> int:
    """Return how many files the last whole build of a flavour compiled, as an estimate."""
    for file in sorted(paths.kernels.glob("*/build.json"), key=_time, reverse=True):
        record = _read(file.parent)
        if record is not None and record.flavour == flavour and record.objects:
            return record.objects
    return default


def _failure(paths: Paths, key: str) -> Path:
    return paths.kernels / f"{key}.failed.json"


@contextlib.contextmanager
def _new_folder(parent: Path, key: str) -> Iterator[Path]:
    for stale in parent.glob(f".{key}-*"):
        shutil.rmtree(stale, ignore_errors=True)
    young = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=parent))
    try:
        yield young
    finally:
        shutil.rmtree(young, ignore_errors=True)


def _replace(young: Path, folder: Path) -> None:
    if folder.exists():
        # What is there was found damaged, or this would not have been built.
        damaged = young.with_name(f"{young.name}-damaged")
        folder.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    young.rename(folder)


def _read(folder: Path) -> Record | None:
    try:
        return msgspec.json.decode((folder / "build.json").read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None


def _is_intact(path: Path, file: _File | None) -> bool:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    if file is None or stat.st_size != file.size:
        return False
    return stat.st_mtime_ns == file.mtime_ns or _sha256(path) == file.sha256


def _describe(path: Path) -> _File:
    stat = path.stat()
    return _File(_sha256(path), stat.st_size, stat.st_mtime_ns)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _built(folder: Path, record: Record, kernel: Kernel, *, cached: bool) -> BuiltKernel:
    return BuiltKernel(
        key=record.key,
        kernel=kernel,
        tree=record.tree,
        flavour=record.flavour,
        vmlinux=folder / "vmlinux",
        config=folder / "config",
        log=folder / _LOG,
        release=record.release,
        seconds=record.seconds,
        cached=cached,
        modules=tuple(folder / name for name in sorted(record.files) if name not in _FILES),
    )
