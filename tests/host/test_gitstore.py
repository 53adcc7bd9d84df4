# SPDX-License-Identifier: GPL-2.0-only
"""The store: made whole, deaf to the user's git settings, safe after a killed run."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from workbench.errors import InfraError
from workbench.gitstore import Store
from workbench.model import KernelTag
from workbench.paths import Paths
from workbench.release import makefile_tag, trailers

if TYPE_CHECKING:
    from pathlib import Path

MAKEFILE = b"# SPDX\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 38\nEXTRAVERSION =\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(Paths(tmp_path, tmp_path / "cache", tmp_path / "state"))


def commit(store: Store, ref: str, makefile: bytes = MAKEFILE) -> str:
    blob = store.git("hash-object", "-w", "--stdin", input=makefile)
    tree = store.git("mktree", input=f"100644 blob {blob}\tMakefile\n".encode())
    made = store.git("commit-tree", tree, "-m", "a kernel")
    store.update_ref(ref, made)
    return made


def test_a_kernel_is_found_by_its_tag_with_what_its_makefile_says(store: Store) -> None:
    made = commit(store, "refs/tags/v6.12.38")
    kernel = store.kernel("v6.12.38")
    assert kernel is not None
    assert (kernel.commit, kernel.tag) == (made, KernelTag(6, 12, 38))
    assert store.has("v6.12.38")
    assert store.tags() == {"v6.12.38": made}


def test_what_is_not_there_is_none(store: Store) -> None:
    assert store.kernel("v6.12.39") is None
    assert store.resolve("v6.12.39") is None
    assert store.kernel("../../etc") is None
    made = commit(store, "refs/tags/v6.12.38")
    assert store.read_file(made, "net/no such\nfile") is None
    assert store.read_file(made, "") is None


def test_objects_are_read_as_bytes_also_those_written_after_the_reader_started(
    store: Store,
) -> None:
    made = commit(store, "refs/tags/v6.12.38")
    assert store.read_file(made, "Makefile") == MAKEFILE
    late = store.git("hash-object", "-w", "--stdin", input=b"\xff\0late")
    assert store.cat_file(late) == b"\xff\0late"
    with pytest.raises(KeyError):
        store.cat_file("0" * 40)


def test_a_commit_is_the_same_whoever_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = []
    for name in ("one", "two"):
        home = tmp_path / name
        home.mkdir()
        (home / ".gitconfig").write_text(f"[user]\nname = {name}\n[core]\nautocrlf = true\n")
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("GIT_AUTHOR_NAME", name)
        monkeypatch.setenv("GIT_DIR", "/nowhere")
        store = Store.open(Paths(tmp_path, home / "cache", home / "state"))
        ids.append(commit(store, "refs/tags/v6.12.38", MAKEFILE + b"\r\n"))
    assert ids[0] == ids[1]


def test_no_outer_git_variable_reaches_a_child(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_INDEX_FILE", "/elsewhere")
    assert "GIT_INDEX_FILE" not in store.environment()
    assert store.environment()["GIT_CONFIG_GLOBAL"] == os.devnull


def test_a_failing_command_is_one_line_that_says_where(store: Store) -> None:
    with pytest.raises(InfraError) as caught:
        store.git("rev-parse", "--verify", "nothing")
    assert "git rev-parse --verify nothing" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert store.git_rc("cat-file", "-e", "nothing")[0] == 128


def test_opening_again_keeps_what_is_there_and_removes_a_half_made_store(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "cache", tmp_path / "state")
    half = paths.cache / "store.git.new-killed"
    half.mkdir(parents=True)
    made = commit(Store.open(paths), "refs/tags/v6.12.38")
    assert not half.exists()
    assert Store.open(paths).resolve("refs/tags/v6.12.38") == made


def test_locks_and_half_packs_of_a_killed_run_do_not_stop_the_next_writer(store: Store) -> None:
    left = [
        store.path / "refs" / "tags" / "v6.12.38.lock",
        store.path / "packed-refs.lock",
        store.path / "objects" / "pack" / "tmp_pack_killed",
        store.path / "fast_import_crash_1",
    ]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    commit(store, "refs/tags/v6.12.38")
    assert [file for file in left if file.exists()] == []


def test_an_inner_writer_leaves_the_outer_ones_files_alone(store: Store) -> None:
    alive = store.path / "objects" / "pack" / "tmp_pack_alive"
    alive.parent.mkdir(parents=True, exist_ok=True)
    with store.writing():
        alive.touch()
        commit(store, "refs/tags/v6.12.38")
        assert alive.exists()


def test_one_writer_at_a_time_also_among_threads(store: Store) -> None:
    inside = threading.Semaphore(1)
    clashes = []

    def write(number: int) -> None:
        with store.writing():
            if not inside.acquire(blocking=False):
                clashes.append(number)
                return
            store.git("hash-object", "-w", "--stdin", input=b"%d" % number)
            inside.release()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == []


def test_an_unwritable_cache_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfraError, match="KPW_CACHE"):
        Store.open(Paths(tmp_path, tmp_path / "file" / "cache", tmp_path))


@pytest.mark.parametrize(
    ("makefile", "tag"),
    [
        (MAKEFILE, KernelTag(6, 12, 38)),
        (MAKEFILE.replace(b"EXTRAVERSION =", b"EXTRAVERSION = -rc3"), KernelTag(6, 12, 38, 3)),
        (MAKEFILE.replace(b"EXTRAVERSION =", b"EXTRAVERSION = -mine"), KernelTag(6, 12, 38)),
        (b"VERSION=5\nPATCHLEVEL=10\nSUBLEVEL=0\n", KernelTag(5, 10)),
        (MAKEFILE + b"VERSION = 9\n", KernelTag(6, 12, 38)),
        (b"all:\n\tcc x.c\n", None),
        (b"VERSION = six\nPATCHLEVEL = 1\nSUBLEVEL = 1\n", None),
    ],
)
def test_the_release_is_read_from_the_makefile(makefile: bytes, tag: KernelTag | None) -> None:
    assert makefile_tag(makefile) == tag


def test_trailers_are_the_last_paragraph() -> None:
    raw = b"tree 1\nauthor A: B\n\nTitle: x\n\nOrigin: here\nSha256: 12\n"
    assert trailers(raw) == {"Origin": "here", "Sha256": "12"}
