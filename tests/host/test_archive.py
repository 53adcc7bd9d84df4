# SPDX-License-Identifier: GPL-2.0-only
"""The Debian archive's chain of trust, on a toy archive with a key of its own."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from toy_server import ToyServer, serving

from workbench import apt, archive, process, signature
from workbench.apt import Base
from workbench.catalogue import Debian
from workbench.model import KernelTag
from workbench.paths import Paths
from workbench.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.errors import InfraError

TOY = Path(__file__).parent / "toy_archive"
TAG = KernelTag(6, 12, 38)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / "cache", tmp_path / "state")


@pytest.fixture
def debian() -> Debian:
    return Debian(("toy",), ("pool/main/l/linux",), str(TOY / "keyring.gpg"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyServer]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as toy:
        sources = (TOY / "Sources.xz").read_bytes()
        by_hash = f"by-hash/SHA256/{hashlib.sha256(sources).hexdigest()}"
        toy.files["/d/dists/toy/InRelease"] = (TOY / "InRelease").read_bytes()
        toy.files[f"/d/dists/toy/main/source/{by_hash}"] = sources
        monkeypatch.setattr(apt, "bases", lambda: (Base(f"{toy.url}/d/", security=False),))
        yield toy


def offers(
    paths: Paths, debian: Debian, tag: KernelTag = TAG
) -> tuple[list[archive.Offer], list[InfraError]]:
    faults: list[InfraError] = []
    return list(archive.offers(paths, debian, tag, faults, Silent())), faults


def test_a_release_is_offered_once_and_the_main_package_first(
    server: ToyServer, paths: Paths, debian: Debian
) -> None:
    found, faults = offers(paths, debian)
    assert faults == []
    assert [(offer.name, offer.sha256[0]) for offer in found] == [
        ("linux_6.12.38.orig.tar.xz", "2"),
        ("linux-6.12_6.12.38.orig.tar.xz", "4"),
    ]
    assert found[0].url == f"{server.url}/d/pool/main/l/linux/linux_6.12.38.orig.tar.xz"


def test_release_candidates_are_known_and_other_packages_are_not(
    server: ToyServer, paths: Paths, debian: Debian
) -> None:
    assert server.url
    assert [offer.name for offer in offers(paths, debian, KernelTag(7, 3, 0, 7))[0]] == [
        "linux_7.3~rc7.orig.tar.xz"
    ]
    assert {offer.tag for offer in archive.known(paths)} == {"v6.12.38", "v7.3-rc7"}


def test_a_kept_index_needs_no_network(server: ToyServer, paths: Paths, debian: Debian) -> None:
    first = offers(paths, debian)
    asked = len(server.asked)
    assert offers(paths, debian) == first
    assert offers(paths, debian, KernelTag(1, 2, 3)) == ([], [])
    assert len(server.asked) == asked


def test_asking_again_reads_the_list_only_when_it_changed(
    server: ToyServer, paths: Paths, debian: Debian
) -> None:
    offers(paths, debian)
    server.asked.clear()
    assert len(archive.refresh(paths, debian, [], Silent())) == 3
    assert server.paths() == ["/d/dists/toy/InRelease"]


def test_without_by_hash_the_plain_name_is_asked(
    server: ToyServer, paths: Paths, debian: Debian
) -> None:
    by_hash = next(path for path in server.files if "by-hash" in path)
    server.files["/d/dists/toy/main/source/Sources.xz"] = server.files.pop(by_hash)
    assert len(offers(paths, debian)[0]) == 2


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("InRelease", b"Suite: toy", "the text was changed"),
        ("InRelease.stranger", b"", "by no key of the keyring"),
        ("Sources.xz", b"", "not signed"),
    ],
)
def test_a_bad_signature_is_refused_and_set_aside(
    server: ToyServer, paths: Paths, debian: Debian, name: str, change: bytes, why: str
) -> None:
    data = (TOY / name).read_bytes().replace(change, b"Suite: evil") if change else b""
    server.files["/d/dists/toy/InRelease"] = data or (TOY / name).read_bytes()
    found, faults = offers(paths, debian)
    assert found == []
    assert [why in str(fault) for fault in faults] == [True]
    assert len(list(paths.downloads.glob("toy_InRelease.refused-*"))) == 1
    assert archive.known(paths) == ()


def test_one_good_signature_among_unknown_ones_is_enough(
    server: ToyServer, paths: Paths, debian: Debian
) -> None:
    server.files["/d/dists/toy/InRelease"] = (TOY / "InRelease.both").read_bytes()
    assert len(offers(paths, debian)[0]) == 2


def test_only_what_is_inside_the_signature_is_read(tmp_path: Path) -> None:
    signed = b"Suite: evil\n\n" + (TOY / "InRelease").read_bytes() + b"\nSuite: evil\n"
    text = signature.verified(signed, TOY / "keyring.gpg", "x", tmp_path)
    assert "evil" not in text
    assert "Suite: toy" in text


def test_a_list_that_is_not_the_signed_one_is_refused(
    server: ToyServer, paths: Paths, debian: Debian
) -> None:
    by_hash = next(path for path in server.files if "by-hash" in path)
    server.files[by_hash] = server.files[by_hash][:-4] + b"evil"
    found, faults = offers(paths, debian)
    assert (found, "wrong digest" in str(faults[0])) == ([], True)


def test_an_inrelease_of_another_suite_is_refused(server: ToyServer, paths: Paths) -> None:
    server.files["/d/dists/other/InRelease"] = server.files["/d/dists/toy/InRelease"]
    other = Debian(("other",), (), str(TOY / "keyring.gpg"))
    found, faults = offers(paths, other)
    assert (found, "another suite" in str(faults[0])) == ([], True)


def test_a_suite_that_is_gone_is_no_fault_and_is_remembered(
    server: ToyServer, paths: Paths
) -> None:
    gone = Debian(("gone",), (), str(TOY / "keyring.gpg"))
    assert offers(paths, gone) == ([], [])
    assert offers(paths, gone) == ([], [])
    assert server.paths() == ["/d/dists/gone/InRelease"]


def test_no_network_is_asked_once_and_is_a_fault(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setattr(apt, "bases", lambda: (Base("http://127.0.0.1:9/d/", security=False),))
    two = Debian(("one", "two"), (), str(TOY / "keyring.gpg"))
    found, faults = offers(paths, two)
    assert (found, len(faults)) == ([], 1)


def test_a_missing_keyring_says_what_to_install(server: ToyServer, paths: Paths) -> None:
    assert server.url
    _, faults = offers(paths, Debian(("toy",), (), "/no/such/keyring.gpg"))
    assert "install debian-archive-keyring" in str(faults[0])


def test_the_addresses_are_apts_own_without_other_peoples_repositories(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = {
        "$(REPO_URI) $(ORIGIN)": "http://a/debian/ Debian\nhttp://c/other/ Other\n",
        "$(REPO_URI) $(RELEASE) $(COMPONENT)": (
            "http://a/debian/ bookworm main\nhttp://a/debian/ bookworm-updates main\n"
            "http://a/debian/ bookworm contrib\nhttp://b/sec bookworm-security main\n"
            "http://c/other/ bookworm main\nfile:/d/ bookworm main\n"
        ),
    }

    def run(argv: list[str], *, check: bool) -> process.Completed:
        assert not check
        out = said[argv[-1]] if "indextargets" in argv else "P='http://proxy:3142'\n"
        return process.Completed(tuple(argv), 0, out, "")

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert apt.bases() == (
        Base("http://a/debian/", security=False, proxy="http://proxy:3142"),
        Base("http://b/sec/", security=True, proxy="http://proxy:3142"),
    )


def test_what_was_listed_and_gone_is_remembered_until_it_is_back(paths: Paths) -> None:
    assert archive.gone(paths) == frozenset()
    archive.remember(paths, "http://a/x", is_gone=True)
    assert archive.gone(paths) == {"http://a/x"}
    archive.remember(paths, "http://a/x", is_gone=False)
    assert archive.gone(paths) == frozenset()
