# SPDX-License-Identifier: GPL-2.0-only
"""Places a kernel of one file may come from: a server, a repository of the user's."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from typing import TYPE_CHECKING

from workbench import process
from workbench.gitstore import Store
from workbench.model import KernelTag

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.paths import Paths

TAG = KernelTag(6, 12, 38)
NAME = "linux_6.12.38.orig.tar.xz"
POOL = f"/d/pool/main/l/linux/{NAME}"
OTHER = """
[site]
address = "http://127.0.0.1:9/kernel"
[debian]
suites = ["toy"]
pool = ["pool/main/l/linux"]
keyring = "/no/such/keyring.gpg"
"""


def makefile(tag: KernelTag) -> bytes:
    return (
        f"VERSION = {tag.major}\nPATCHLEVEL = {tag.minor}\nSUBLEVEL = {tag.patch}\nEXTRAVERSION =\n"
    ).encode()


def tarball(more: bytes = b"") -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        data = makefile(TAG) + more
        info = tarfile.TarInfo("linux/Makefile")
        info.size, info.mtime = len(data), 1700000000
        tar.addfile(info, io.BytesIO(data))
    return lzma.compress(raw.getvalue())


def entry(data: bytes, tag: str = "v6.12.38", more: str = "default = true") -> str:
    digest = hashlib.sha256(data).hexdigest()
    return (
        f'[[kernel]]\ntag = "{tag}"\norigin = "debian"\ntarball = "{NAME}"\n'
        f'size = {len(data)}\nsha256 = "{digest}"\n{more}\n'
    )


def write(paths: Paths, text: str) -> None:
    (paths.patches / "kernels.toml").write_text(text)


class Clone:
    """A repository of the user's own with a few commits."""

    def __init__(self, path: Path, paths: Paths) -> None:
        """Make it."""
        self.path = path
        self._env = Store.open(paths).environment()
        path.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *args: str) -> str:
        return process.run(["git", "-C", self.path, *args], env=self._env).stdout.strip()

    def commit(self, patch: int, text: str = "") -> str:
        (self.path / "Makefile").write_bytes(makefile(KernelTag(6, 12, patch)) + text.encode())
        (self.path / "net").mkdir(exist_ok=True)
        (self.path / "net" / "xfrm.c").write_text(f"int x = {patch};\n")
        self.git("add", ".")
        self.git("commit", "-q", "-m", f"Linux 6.12.{patch}")
        return self.git("rev-parse", "HEAD")
