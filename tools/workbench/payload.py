# SPDX-License-Identifier: GPL-2.0-only
"""What a guest is given to do: files and one command, on its second disk."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from workbench.errors import InfraError

if TYPE_CHECKING:
    from collections.abc import Iterable

# One size for all: a restored snapshot wants a disk of the size it knew.
_DISK_BYTES = 64 << 20
_SECTOR = 512


@dataclass(frozen=True)
class Payload:
    """A guest's work.

    ``command`` is a shell script, run as /payload/command in /root.
    ``files`` maps a name under /payload to bytes, or to a file or directory
    of the host; "start.py" among them is what a restored guest runs instead.
    ``terminal`` asks for the virtio console instead of the output port.
    """

    command: str
    files: tuple[tuple[str, Path | bytes], ...] = ()
    terminal: bool = False

    def write(self, path: Path, *, empty: bool = False) -> None:
        """Write the disk: a tar in the format that qemu/init.c unpacks to /payload.

        A disk that is there and ``empty`` is filled in place, its first sector
        last: a guest may be waiting for it. With ``empty`` it has no content yet.
        """
        if empty:
            with path.open("wb") as disk:
                disk.truncate(_DISK_BYTES)
            return
        data = self._tar()
        with path.open("r+b" if path.exists() else "w+b") as disk:
            disk.seek(_SECTOR)
            disk.write(data[_SECTOR:])
            disk.truncate(_DISK_BYTES)
            disk.flush()
            disk.seek(0)
            disk.write(data[:_SECTOR])

    def _tar(self) -> bytes:
        file = io.BytesIO()
        with tarfile.open(
            fileobj=file, mode="w", format=tarfile.GNU_FORMAT, dereference=True
        ) as tar:
            _add(tar, "command", self.command.encode(), mode=0o755)
            if self.terminal:
                _add(tar, "tty", b"")
            for folder in _folders(name for name, _ in self.files):
                _add_folder(tar, folder)
            for name, source in self.files:
                if isinstance(source, Path):
                    tar.add(source.resolve(), name, filter=_plain)
                else:
                    _add(tar, name, source)
        size = file.tell()
        if size > _DISK_BYTES:
            raise InfraError(
                f"the files for the guest are {size >> 20} MiB, its disk has {_DISK_BYTES >> 20}",
                where=", ".join(name for name, _ in self.files),
                next_step="give it less",
            )
        return file.getvalue()


def modules(files: Iterable[Path]) -> tuple[tuple[str, Path], ...]:
    """Return a kernel's modules as files of a payload: /payload/modules/<name>.ko."""
    return tuple((f"modules/{file.name}", file) for file in files)


def _folders(names: Iterable[str]) -> list[str]:
    """Return the folders that files lie in, outer ones first: the guest makes none by itself."""
    found = {str(folder) for name in names for folder in PurePosixPath(name).parents}
    return sorted(found - {"."})


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    tar.addfile(info)


def _add(tar: tarfile.TarFile, name: str, data: bytes, *, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Keep host names, byte code of another Python and clocks out of the guest."""
    if Path(info.name).name in {"__pycache__", ".pytest_cache"} or not (
        info.isfile() or info.isdir()
    ):
        return None
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info
