# SPDX-License-Identifier: GPL-2.0-only
"""From a tarball to a commit: the tar stream goes straight into git fast-import.

Nothing is unpacked, and no more than one file is in memory at a time. The same
tarball gives the same commit on every machine: fixed identity, the date is the
tarball's own (the newest file in it), and the message says what was imported.
"""

from __future__ import annotations

import tarfile
import tempfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, NoReturn

from workbench import download, process
from workbench.errors import InfraError
from workbench.gitsettings import IDENTITY
from workbench.gitstore import MEND_STORE, is_disk_full
from workbench.release import makefile_tag

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.gitstore import Store
    from workbench.model import KernelTag
    from workbench.progress import Progress

_CHUNK = 1 << 20
_EVERY = 2000  # files between two words of progress
_EXECUTABLE = 0o100


class _DamagedError(Exception):
    """A tarball that cannot be read to its end."""


@dataclass(frozen=True)
class Tarball:
    """A checked tarball; all but its path goes into the commit's message."""

    path: Path
    name: str
    sha256: str
    origin: str


@dataclass
class _Tree:
    """What the stream has told so far: path -> (git mode, mark of the blob)."""

    files: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    marks: int = 0
    newest: int = 0


def import_tarball(store: Store, tarball: Tarball, tag: KernelTag, progress: Progress) -> str:
    """Import a tarball as ``refs/tags/<tag>``; returns the commit.

    The tag is written last: whoever sees it sees all of it. The caller holds
    :meth:`Store.writing`. InfraError when the tarball is damaged, escapes its
    top directory, is not the release it is said to be (it is set aside then),
    or the disk is full.
    """
    ref = f"refs/kpw/import/{tag}"
    try:
        _stream(store, tarball, (ref, f"Linux {str(tag)[1:]}"), progress)
    except _DamagedError as error:
        raise _refused(tarball, f"damaged tarball ({error})") from error
    commit = store.git("rev-parse", ref)
    found = makefile_tag(store.read_file(commit, "Makefile") or b"")
    if found == tag:
        store.git("update-ref", f"refs/tags/{tag}", commit)
    store.git("update-ref", "-d", ref)
    if found != tag:
        said = "no kernel" if found is None else f"Linux {found}"
        raise _refused(tarball, f"holds {said} and not {tag}")
    return commit


def _stream(store: Store, tarball: Tarball, target: tuple[str, str], progress: Progress) -> None:
    with tempfile.TemporaryFile() as errors:
        unpack = process.spawned(["xz", "-dc", tarball.path], stderr=errors)
        command = store.argv(
            "-c",
            "pack.compression=1",
            "fast-import",
            "--quiet",
            "--force",
            "--done",
            "--date-format=raw",
        )
        load = process.spawned(
            command, env=store.environment(), stdin=process.PIPE, stdout=errors, stderr=errors
        )
        with unpack as xz, load as git:
            if xz.stdout is None or git.stdin is None:  # pragma: no cover  # asked for above
                raise AssertionError("no pipe to git fast-import")
            try:
                tree = _blobs(xz.stdout, git.stdin, target[0][16:], progress)
                _commit(git.stdin, tree, tarball, target)
                git.stdin.close()
            except (tarfile.TarError, EOFError) as error:
                raise _DamagedError(str(error)) from error
            except BrokenPipeError:
                git.wait()
            _finish(xz, git, errors)


def _finish(xz: process.Popen[bytes], git: process.Popen[bytes], errors: IO[bytes]) -> None:
    """Look at how both ended; fast-import's own word comes first."""
    if git.wait() != 0:
        errors.seek(0)
        _git_failed(errors.read().decode(errors="replace"))
    if xz.wait() != 0:
        errors.seek(0)
        raise _DamagedError(errors.read().decode(errors="replace").strip())


def _git_failed(said: str) -> NoReturn:
    if is_disk_full(said):
        raise InfraError(
            "the disk is full",
            where="git fast-import",
            next_step="free about 1 GB under the cache directory; nothing was lost",
        )
    lines = [line for line in said.splitlines() if line.startswith(("fatal:", "error:"))]
    raise InfraError(lines[0] if lines else "died", where="git fast-import", next_step=MEND_STORE)


def _refused(tarball: Tarball, why: str) -> InfraError:
    aside = download.set_aside(tarball.path, tarball.path, tarball.sha256)
    return InfraError(
        why,
        where=str(tarball.path),
        next_step=f"set aside as {aside}; check the disk and run it again, which brings it anew",
    )


def _blobs(source: IO[bytes], git: IO[bytes], what: str, progress: Progress) -> _Tree:
    """Send every file's bytes; returns which path gets which."""
    tree = _Tree()
    with tarfile.open(fileobj=source, mode="r|", bufsize=_CHUNK) as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would remember all 90,000
            tree.newest = max(tree.newest, int(member.mtime))
            _entry(tar, member, git, tree)
            if len(tree.files) % _EVERY == 0:
                progress.step(f"importing {what}", len(tree.files), unit="files")
    while source.read(_CHUNK):  # so that xz checks its last sum
        pass
    _no_path_through_a_file(tree)
    return tree


def _entry(tar: tarfile.TarFile, member: tarfile.TarInfo, git: IO[bytes], tree: _Tree) -> None:
    path = _inside(member.name)
    if member.isdir() or path is None:
        return
    if member.islnk():
        linked = _inside(member.linkname)
        if linked is None or linked not in tree.files:
            raise tarfile.TarError(f"{member.name} is a hard link to nothing before it")
        tree.files[path] = tree.files[linked]
        return
    tree.marks += 1
    if member.issym():
        target = member.linkname.encode(errors="surrogateescape")
        git.write(b"blob\nmark :%d\ndata %d\n%s\n" % (tree.marks, len(target), target))
        tree.files[path] = ("120000", tree.marks)
        return
    content = tar.extractfile(member)
    if content is None:
        raise tarfile.TarError(f"{member.name} is neither file, directory nor link")
    git.write(b"blob\nmark :%d\ndata %d\n" % (tree.marks, member.size))
    left = member.size
    while chunk := content.read(min(left, _CHUNK)):
        git.write(chunk)
        left -= len(chunk)
    if left:
        raise tarfile.TarError(f"{member.name} is cut short")
    git.write(b"\n")
    tree.files[path] = ("100755" if member.mode & _EXECUTABLE else "100644", tree.marks)


def _inside(name: str) -> bytes | None:
    """Return a path below the top directory, None for that directory itself."""
    parts = name.rstrip("/").split("/")
    if parts[0] == ".":
        parts = parts[1:]
    if name.startswith("/") or any(part in {"", ".", ".."} for part in parts[1:]):
        raise tarfile.TarError(f"{name!r} leaves the tarball's own directory")
    if parts[:1] == [".."] or any(part.lower() == ".git" for part in parts):
        raise tarfile.TarError(f"{name!r} must not be in a kernel's tarball")
    return "/".join(parts[1:]).encode(errors="surrogateescape") or None


def _no_path_through_a_file(tree: _Tree) -> None:
    for path in tree.files:
        directory = path.rpartition(b"/")[0]
        while directory and directory not in tree.files:
            directory = directory.rpartition(b"/")[0]
        if directory:
            raise _DamagedError(f"{path!r} lies under {directory!r}, which is no directory")


def _commit(git: IO[bytes], tree: _Tree, tarball: Tarball, target: tuple[str, str]) -> None:
    ref, title = target
    who = f"{IDENTITY[0]} <{IDENTITY[1]}> {tree.newest} +0000"
    message = (
        f"{title}\n\nOrigin: {tarball.origin}\nTarball: {tarball.name}\nSha256: {tarball.sha256}\n"
    ).encode()
    git.write(f"commit {ref}\nauthor {who}\ncommitter {who}\ndata {len(message)}\n".encode())
    git.write(message + b"\ndeleteall\n")
    for path, (mode, mark) in tree.files.items():
        git.write(b"M %s :%d %s\n" % (mode.encode(), mark, _quoted(path)))
    git.write(b"\ndone\n")


def _quoted(path: bytes) -> bytes:
    if not any(byte in b'"\n\\' for byte in path):
        return path
    escaped = path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"'
