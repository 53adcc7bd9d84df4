# SPDX-License-Identifier: GPL-2.0-only
"""A tarball becomes the commit that git add of the unpacked tree would be."""

from __future__ import annotations

import hashlib
import io
import lzma
import shutil
import tarfile
from typing import TYPE_CHECKING

import pytest

from workbench import process
from workbench.errors import InfraError
from workbench.fastimport import Tarball, import_tarball
from workbench.gitstore import Store
from workbench.model import KernelTag
from workbench.paths import Paths
from workbench.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TAG = KernelTag(6, 12, 38)
MAKEFILE = b"VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 38\nEXTRAVERSION =\n"
NEWEST = 1700000000
Member = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, **more: object) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode, info.mtime = kind, len(data), 0o644, NEWEST - 5
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def kernel(*more: Member, makefile: bytes = MAKEFILE) -> list[Member]:
    return [
        entry("linux-6.12.38", kind=tarfile.DIRTYPE, mode=0o755),
        entry("linux-6.12.38/Makefile", makefile, mtime=NEWEST),
        *more,
    ]


ORDINARY = kernel(
    entry("linux-6.12.38/.gitignore", b"*.o\nignored\n"),
    entry("linux-6.12.38/ignored", b"tracked all the same\n"),
    entry("linux-6.12.38/scripts", kind=tarfile.DIRTYPE),
    entry("linux-6.12.38/scripts/run me.sh", b"#!/bin/sh\n", mode=0o775),
    entry('linux-6.12.38/scripts/odd"name\\', b"\xff\0\r\n"),
    entry("linux-6.12.38/scripts/" + "l" * 120, b"a long name\n"),
    entry("linux-6.12.38/dts", kind=tarfile.SYMTYPE, linkname="../scripts", mode=0o777),
    entry("linux-6.12.38/again", kind=tarfile.LNKTYPE, linkname="linux-6.12.38/ignored"),
    entry("linux-6.12.38/empty", b""),
    entry("linux-6.12.38/empty-dir", kind=tarfile.DIRTYPE),
)


def pack(path: Path, members: list[Member]) -> Tarball:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    path.write_bytes(lzma.compress(raw.getvalue()))
    return Tarball(path, path.name, hashlib.sha256(path.read_bytes()).hexdigest(), "a test")


@pytest.fixture
def new_store(tmp_path: Path) -> Callable[[str], Store]:
    def make(name: str) -> Store:
        return Store.open(Paths(tmp_path, tmp_path / name, tmp_path / "state"))

    return make


@pytest.fixture
def store(new_store: Callable[[str], Store]) -> Store:
    return new_store("cache")


def bring(store: Store, tarball: Tarball) -> str:
    with store.writing():
        return import_tarball(store, tarball, TAG, Silent())


def test_the_tree_is_what_git_add_makes_of_the_unpacked_tarball(
    store: Store, tmp_path: Path
) -> None:
    tarball = pack(tmp_path / "k.tar.xz", ORDINARY)
    commit = bring(store, tarball)
    process.run(["tar", "-C", tmp_path, "-xf", tarball.path])
    work = tmp_path / "linux-6.12.38"
    git = ("git", "-C", str(work))
    process.run([*git, "init", "-q"], env=store.environment())
    process.run([*git, "add", "-f", "."], env=store.environment())
    tree = process.run([*git, "write-tree"], env=store.environment()).stdout.strip()
    assert store.git("rev-parse", f"{commit}^{{tree}}") == tree
    assert store.resolve("refs/tags/v6.12.38") == commit


def test_the_commit_is_the_same_in_every_store(
    new_store: Callable[[str], Store], tmp_path: Path
) -> None:
    tarball = pack(tmp_path / "k.tar.xz", ORDINARY)
    one, two = (new_store(name) for name in ("one", "two"))
    commits = {bring(one, tarball), bring(two, tarball)}
    assert len(commits) == 1
    raw = one.cat_file(commits.pop()).decode()
    assert f"> {NEWEST} +0000" in raw
    assert f"Sha256: {tarball.sha256}" in raw


def is_set_aside(tarball: Tarball, error: InfraError) -> None:
    """Look that a refused tarball is not in the way of the next one, and that this is told."""
    (aside,) = tarball.path.parent.glob(f"{tarball.path.name}.refused-*")
    assert not tarball.path.exists()
    assert f"set aside as {aside}" in error.next_step


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (entry("linux-6.12.38/../../etc/passwd", b"x"), "leaves"),
        (entry("/etc/passwd", b"x"), "leaves"),
        (entry("../outside", b"x"), "must not"),
        (entry("linux-6.12.38/.git/config", b"x"), "must not"),
        (entry("linux-6.12.38/pipe", kind=tarfile.FIFOTYPE), "neither"),
        (entry("linux-6.12.38/Makefile/under", b"x"), "no directory"),
        (entry("linux-6.12.38/h", kind=tarfile.LNKTYPE, linkname="linux-6.12.38/no"), "hard link"),
    ],
)
def test_what_does_not_belong_in_a_kernel_is_refused(
    store: Store, tmp_path: Path, member: Member, why: str
) -> None:
    tarball = pack(tmp_path / "k.tar.xz", kernel(member))
    with pytest.raises(InfraError, match=why) as caught:
        bring(store, tarball)
    assert store.tags() == {}
    is_set_aside(tarball, caught.value)


def test_another_release_than_it_is_said_to_be_is_refused(store: Store, tmp_path: Path) -> None:
    tarball = pack(tmp_path / "k.tar.xz", kernel(makefile=MAKEFILE.replace(b"38", b"39")))
    with pytest.raises(InfraError, match=r"holds Linux v6\.12\.39 and not") as caught:
        bring(store, tarball)
    is_set_aside(tarball, caught.value)
    assert store.git("for-each-ref") == ""


@pytest.mark.parametrize("keep", [0.5, 0.98])
def test_a_truncated_tarball_is_damaged_and_leaves_no_tag(
    store: Store, tmp_path: Path, keep: float
) -> None:
    noise = hashlib.shake_256(b"seed").digest(300_000)
    tarball = pack(tmp_path / "k.tar.xz", kernel(entry("linux-6.12.38/noise", noise)))
    whole = tarball.path.read_bytes()
    tarball.path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(InfraError, match="damaged tarball") as caught:
        bring(store, tarball)
    assert "\n" not in str(caught.value)
    is_set_aside(tarball, caught.value)
    assert store.git("for-each-ref") == ""
    tarball.path.write_bytes(whole)
    assert bring(store, tarball) == store.resolve("v6.12.38")


def test_a_changed_byte_is_damaged(store: Store, tmp_path: Path) -> None:
    tarball = pack(tmp_path / "k.tar.xz", ORDINARY)
    data = bytearray(tarball.path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    tarball.path.write_bytes(data)
    with pytest.raises(InfraError, match="damaged tarball"):
        bring(store, tarball)


def test_what_a_killed_import_left_is_cleared_and_the_next_gives_the_same(
    new_store: Callable[[str], Store], tmp_path: Path
) -> None:
    tarball = pack(tmp_path / "k.tar.xz", ORDINARY)
    expected = bring(new_store("whole"), tarball)
    store = new_store("killed")
    feed = b"blob\nmark :1\ndata 5\nhello\n"
    importer = store.argv("fast-import", "--quiet", "--done")
    with process.spawned(importer, env=store.environment(), stdin=process.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(feed)
        child.stdin.write(b"progress here\n")
        child.stdin.flush()
        assert child.stdout is not None
        assert child.stdout.readline() == b"progress here\n"
    assert list((store.path / "objects" / "pack").glob("tmp_pack_*"))
    assert bring(store, tarball) == expected
    assert not list((store.path / "objects" / "pack").glob("tmp_*"))


def test_the_second_kernel_shares_what_it_has_in_common(store: Store, tmp_path: Path) -> None:
    noise = entry("linux-6.12.38/noise", hashlib.shake_256(b"seed").digest(200_000))
    bring(store, pack(tmp_path / "k.tar.xz", kernel(noise)))
    before = _pack_bytes(store)
    later = entry("linux-6.12.38/new", b"only this\n")
    bring(store, pack(tmp_path / "k.tar.xz", kernel(noise, later)))
    assert _pack_bytes(store) - before < 50_000


def _pack_bytes(store: Store) -> int:
    return sum(file.stat().st_size for file in (store.path / "objects" / "pack").iterdir())


@pytest.mark.parametrize(
    "said", ["unable to write pack: No space left on device", "write error. Out of diskspace"]
)
def test_a_full_disk_is_one_line(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    tarball = pack(tmp_path / "k.tar.xz", ORDINARY)
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    real = shutil.which("git")
    fake.write_text(
        "#!/bin/sh\n"
        'case " $* " in *" fast-import "*)\n'
        f' echo "fatal: {said}" >&2; exit 128;; esac\n'
        f'exec {real} "$@"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=":")
    with pytest.raises(InfraError, match="the disk is full"):
        bring(store, tarball)
    assert store.git("for-each-ref") == ""
