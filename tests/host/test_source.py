# SPDX-License-Identifier: GPL-2.0-only
"""From a name to a kernel: the catalogue, the order of sources, the user's repository."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from toy_kernel import ToyKernels
from toy_source import NAME, OTHER, POOL, Clone, entry, tarball, write

from workbench import apt, source, survey
from workbench.apt import Base
from workbench.catalogue import ORIGINS, load
from workbench.errors import InfraError, UsageError
from workbench.extensions import load_extensions
from workbench.gitsettings import IDENTITY
from workbench.gitstore import Store
from workbench.model import KernelTag
from workbench.paths import Paths
from workbench.progress import Silent

if TYPE_CHECKING:
    from toy_server import ToyServer


def test_the_repositorys_own_catalogue_can_be_read() -> None:
    paths = Paths.default()
    catalogue = load(paths)
    entries = tomllib.loads((paths.patches / "kernels.toml").read_text())["kernel"]
    assert [str(kernel.tag) for kernel in catalogue.supported] == [each["tag"] for each in entries]
    pins = [(kernel.sha256, kernel.size) for kernel in catalogue.supported]
    assert pins == [(each["sha256"], each["size"]) for each in entries]
    (default,) = (each["tag"] for each in entries if each.get("default"))
    assert str(catalogue.default.tag) == default


def test_what_an_extension_is_first_made_on_is_pinned() -> None:
    paths = Paths.default()
    pinned = {kernel.tag for kernel in source.supported(paths)}
    bases = {extension.base for extension in load_extensions(paths)} - {None}
    assert bases
    assert bases <= pinned


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (entry(b"x", more='default = true\nsha512 = "0"') + OTHER, r"sha512.*v6\.12\.38"),
        (entry(b"x").replace("size = 1", 'size = "1"') + OTHER, "size"),
        (entry(b"x").replace(NAME, "../x") + OTHER, r"tarball.*v6\.12\.38"),
        (entry(b"x", tag="latest") + OTHER, "'latest' is not a kernel tag"),
        (entry(b"x", more="") + OTHER, "exactly one kernel"),
        (entry(b"x") + entry(b"x", tag="v6.1.1", more="") + OTHER, "oldest first"),
        (entry(b"x"), "site"),
        ("kernel = 1 2", "cannot be read"),
    ],
)
def test_a_catalogue_that_cannot_be_taken_names_file_and_key(
    paths: Paths, text: str, why: str
) -> None:
    write(paths, text)
    with pytest.raises(UsageError, match=why) as caught:
        source.supported(paths)
    assert "kernels.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pinned_kernel_is_downloaded_imported_and_then_at_hand(
    server: ToyServer, paths: Paths
) -> None:
    server.files[POOL] = tarball()
    write(paths, entry(tarball()) + OTHER)
    kernel = source.obtain(paths, source.default_tag(paths))
    assert (kernel.name, kernel.tag) == ("v6.12.38", KernelTag(6, 12, 38))
    assert "firmware" in kernel.origin
    assert source.obtain(paths, "6.12.38") == kernel
    assert server.paths() == [POOL]
    assert not (paths.downloads / NAME).exists()


def test_a_pinned_tarball_may_be_put_there_by_hand(paths: Paths) -> None:
    write(paths, entry(tarball()) + OTHER)
    paths.downloads.mkdir(parents=True)
    (paths.downloads / NAME).write_bytes(tarball())
    assert source.obtain(paths, "v6.12.38").tag == KernelTag(6, 12, 38)


def test_a_new_pin_replaces_the_import_of_the_old_one(server: ToyServer, paths: Paths) -> None:
    trees = []
    for data in (tarball(), tarball(more=b"# changed\n")):
        server.files[POOL] = data
        write(paths, entry(data) + OTHER)
        trees.append(source.obtain(paths, "v6.12.38").tree)
    assert trees[0] != trees[1]


def test_a_damaged_tarball_is_refused_and_leaves_nothing(server: ToyServer, paths: Paths) -> None:
    server.files[POOL] = tarball()[:-1] + b"\0"
    write(paths, entry(tarball()) + OTHER)
    with pytest.raises(InfraError, match="wrong digest"):
        source.obtain(paths, "v6.12.38")
    assert Store.open(paths).tags() == {}
    assert len(list(paths.downloads.glob("*.refused-*"))) == 1


def test_a_pinned_tarball_no_place_has_is_infrastructure(server: ToyServer, paths: Paths) -> None:
    assert server.url
    write(paths, entry(tarball()) + OTHER)
    with pytest.raises(InfraError, match="pinned tarball cannot be had") as caught:
        source.obtain(paths, "v6.12.38")
    assert str(paths.downloads) in str(caught.value)


def test_an_unknown_tag_tells_who_was_asked_and_what_is_near(
    server: ToyServer, paths: Paths
) -> None:
    assert server.url
    write(paths, entry(tarball()) + OTHER)
    with pytest.raises(UsageError, match=r"no source has v6\.12\.9999") as caught:
        source.obtain(paths, "v6.12.9999")
    assert "kernel.org (skipped" in str(caught.value)
    assert "nearest known: v6.12.38" in str(caught.value)


def test_an_unknown_tag_without_network_is_not_called_unknown(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KPW_KERNEL_KEYRING", raising=False)
    monkeypatch.setattr(apt, "bases", lambda: (Base("http://127.0.0.1:9/d/", security=False),))
    write(paths, entry(tarball()) + OTHER)
    with pytest.raises(InfraError, match="cannot be reached"):
        source.obtain(paths, "v6.12.9999")


def test_nonsense_is_no_tag(paths: Paths) -> None:
    write(paths, entry(tarball()) + OTHER)
    with pytest.raises(UsageError, match="is not a kernel tag"):
        source.obtain(paths, "nonsense")


def test_a_mistyped_name_is_told_with_the_nearest_known(tmp_path: Path) -> None:
    toys = ToyKernels(tmp_path)
    toys.kernel("v6.12.38", {})
    shutil.copy(Paths.default().patches / "kernels.toml", toys.paths.patches)
    with pytest.raises(UsageError, match=r"not a kernel tag; did you mean 'v6\.12\.38'\?"):
        source.obtain_all(toys.paths, ["v6.12.e38"], repo=None, progress=Silent())
    with pytest.raises(UsageError, match=r"did you mean 'v6\.12\.107'\?"):
        source.obtain(toys.paths, "v6.12.l07")


def test_one_wrong_name_among_several_is_told_before_any_download(
    server: ToyServer, paths: Paths
) -> None:
    with pytest.raises(UsageError, match="nonsense"):
        source.refuse_unnamed(paths, ("v6.12.107", "nonsense"))
    assert not server.asked


def test_the_survey_tells_how_far_each_kernel_is(server: ToyServer, paths: Paths) -> None:
    server.files[POOL] = tarball()
    write(paths, entry(tarball()) + OTHER)
    assert [known.state for known in survey.survey(paths)] == [survey.State.AVAILABLE]
    paths.downloads.mkdir(parents=True)
    (paths.downloads / f"{NAME}.part").touch()
    assert [known.state for known in survey.survey(paths)] == [survey.State.PARTLY]
    source.obtain(paths, "v6.12.38")
    (known,) = survey.survey(paths)
    assert (known.state, known.default, known.size) == ("imported", True, len(tarball()))


TOY = Path(__file__).parent / "toy_archive"


@pytest.fixture
def site(server: ToyServer, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> ToyServer:
    for name in ("sha256sums.asc", "linux-6.12.38.tar.xz"):
        server.files[f"/kernel/v6.x/{name}"] = (TOY / name).read_bytes()
    write(paths, entry(b"x", tag="v6.1.1") + OTHER.replace("http://127.0.0.1:9", server.url))
    monkeypatch.setenv("KPW_KERNEL_KEYRING", str(TOY / "site-keyring.gpg"))
    return server


def test_with_a_keyring_the_download_site_is_asked_first(site: ToyServer, paths: Paths) -> None:
    kernel = source.obtain(paths, "v6.12.38")
    assert "kernel.org" in kernel.origin
    assert site.paths() == ["/kernel/v6.x/sha256sums.asc", "/kernel/v6.x/linux-6.12.38.tar.xz"]


def test_sums_by_another_key_are_refused(
    site: ToyServer, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPW_KERNEL_KEYRING", str(TOY / "keyring.gpg"))
    with pytest.raises(InfraError, match=r"sha256sums\.asc: bad signature"):
        source.obtain(paths, "v6.12.38")
    assert len(site.asked) == 1
    assert len(list(paths.downloads.glob("sha256sums.asc.refused-*"))) == 1


def test_the_sites_tarball_must_be_the_one_in_the_sums(site: ToyServer, paths: Paths) -> None:
    site.files["/kernel/v6.x/linux-6.12.38.tar.xz"] += b"\0"
    with pytest.raises(InfraError, match="wrong digest"):
        source.obtain(paths, "v6.12.38")


def test_a_release_the_site_has_not_is_looked_for_elsewhere(site: ToyServer, paths: Paths) -> None:
    with pytest.raises(UsageError, match=r"asked: kernel\.org, the Debian archive"):
        source.obtain(paths, "v6.12.39")
    assert "/d/dists/toy/InRelease" in site.paths()


def test_a_site_that_does_not_answer_is_passed_over(
    server: ToyServer, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.url
    write(paths, entry(b"x", tag="v6.1.1") + OTHER)
    monkeypatch.setenv("KPW_KERNEL_KEYRING", str(TOY / "site-keyring.gpg"))
    with pytest.raises(UsageError, match=r"asked: kernel\.org \(no answer\), the Debian archive"):
        source.obtain(paths, "v6.12.39")


def test_a_tag_of_the_users_repository_comes_one_commit_deep(paths: Paths, clone: Clone) -> None:
    first = clone.commit(1)
    second = clone.commit(2)
    clone.git("tag", "-a", "-m", "annotated", "v6.12.2")
    kernel = source.obtain(paths, "v6.12.2", repo=clone.path)
    assert (kernel.name, kernel.commit) == (f"v6.12.2+{second[:12]}", second)
    assert kernel.tag == KernelTag(6, 12, 2)
    store = Store.open(paths)
    assert store.read_file(kernel.tree, "net/xfrm.c") == b"int x = 2;\n"
    assert store.resolve(f"{first}^{{commit}}") is None
    assert store.git("fsck", "--connectivity-only") == ""


def test_a_commit_no_branch_points_at_and_a_later_one_both_come(paths: Paths, clone: Clone) -> None:
    first = clone.commit(1)
    clone.git("commit", "-q", "--amend", "--allow-empty", "-m", "other")
    assert source.obtain(paths, first, repo=clone.path).commit == first
    clone.commit(3)
    later = source.obtain(paths, "main", repo=clone.path)
    assert later.tag == KernelTag(6, 12, 3)
    assert later.name.startswith("main+")
    assert source.obtain(paths, later.name).commit == later.commit


def test_a_shallow_clone_and_a_subdirectory_will_do(
    paths: Paths, clone: Clone, tmp_path: Path
) -> None:
    clone.commit(1)
    tip = clone.commit(2)
    shallow = tmp_path / "shallow"
    clone.git("clone", "-q", "--depth=1", f"file://{clone.path}", str(shallow))
    assert source.obtain(paths, "HEAD", repo=shallow / "net").commit == tip


def test_a_tree_becomes_a_commit_of_its_own(paths: Paths, clone: Clone) -> None:
    clone.commit(1)
    tree = clone.git("rev-parse", "HEAD^{tree}")
    kernel = source.obtain(paths, "HEAD^{tree}", repo=clone.path)
    assert kernel.tree == tree
    assert Store.open(paths).read_file(kernel.commit, "net/xfrm.c") == b"int x = 1;\n"
    assert source.obtain(paths, tree, repo=clone.path).tree == tree


def test_names_are_good_for_files_and_refs(paths: Paths, clone: Clone) -> None:
    clone.commit(1)
    clone.git("branch", "topic/a@x")
    kernel = source.obtain(paths, "topic/a@x", repo=clone.path)
    assert kernel.name.startswith("topic-a-x+")
    assert source.obtain(paths, "HEAD~0", repo=clone.path).name.startswith("HEAD-0+")


def test_what_the_repository_has_not_comes_from_elsewhere(paths: Paths, clone: Clone) -> None:
    clone.commit(1)
    paths.downloads.mkdir(parents=True)
    (paths.downloads / NAME).write_bytes(tarball())
    assert source.obtain(paths, "v6.12.38", repo=clone.path).name == "v6.12.38"


def test_a_branch_it_has_not_is_refused_with_what_is_near(paths: Paths, clone: Clone) -> None:
    clone.commit(1)
    clone.git("tag", "my-topic-1")
    with pytest.raises(UsageError, match=r"has no 'my-topic-2'.*my-topic-1"):
        source.obtain(paths, "my-topic-2", repo=clone.path)


def test_what_is_no_kernel_or_no_repository_is_refused(
    paths: Paths, clone: Clone, tmp_path: Path
) -> None:
    clone.commit(1)
    clone.git("mv", "Makefile", "GNUmakefile")
    clone.git("commit", "-q", "-m", "no kernel")
    with pytest.raises(UsageError, match="is no kernel source"):
        source.obtain(paths, "main", repo=clone.path)
    (tmp_path / "plain").mkdir()
    with pytest.raises(UsageError, match="is no git repository"):
        source.obtain(paths, "main", repo=tmp_path / "plain")
    assert Store.open(paths).git("for-each-ref") == ""


#: The commit that a pinned tarball was seen to become on another machine.
SEEN = {
    "efc76d3c78a5d65f42724118c437d11db1c9f6309a5f024ee9a8b1978fdc6919": (
        "22ea531d3f999368543c9947b63df6b9afbdddd6"
    ),
}


@pytest.mark.real
def test_the_default_kernel_is_the_same_commit_here_as_everywhere() -> None:
    paths = Paths.default()
    pinned = load(paths).default
    kernel = source.obtain(paths, str(pinned.tag))
    head, _, message = Store.open(paths).cat_file(kernel.commit).decode().partition("\n\n")
    tree, *who = head.splitlines()
    (when,) = {line.rpartition("> ")[2] for line in who}
    name = f"{IDENTITY[0]} <{IDENTITY[1]}>"
    assert who == [f"author {name} {when}", f"committer {name} {when}"]
    assert tree == f"tree {kernel.tree}"
    assert message == (
        f"Linux {str(pinned.tag)[1:]}\n\nOrigin: {ORIGINS[pinned.origin]}\n"
        f"Tarball: {pinned.tarball}\nSha256: {pinned.sha256}\n"
    )
    assert kernel.commit == SEEN.get(pinned.sha256, kernel.commit)
