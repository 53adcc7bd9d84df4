# SPDX-License-Identifier: GPL-2.0-only
"""The guest image: what names it, how it is kept whole, and what a recipe does to a tree."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from workbench import image, userland
from workbench.errors import InfraError, UsageError
from workbench.paths import Paths
from workbench.progress import Silent
from workbench.userland import Plan, Recipe

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    shutil.copytree(REPO / "qemu", tmp_path / "repo" / "qemu")
    return Paths(tmp_path / "repo", tmp_path / "cache", tmp_path / "state")


@pytest.fixture
def made(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Let userlands be made of nothing; return the pins each was asked for."""
    asked: list[dict[str, str]] = []

    def make(plan: Plan, root: Path) -> dict[str, str]:
        asked.append(dict(plan.pins))
        root.mkdir()
        return {"bash": "5.2", "dash": "0.5"}

    def pack(root: Path, into: Path, log: Path) -> None:
        into.write_bytes(b"erofs of " + root.name.encode())
        log.touch()

    monkeypatch.setattr(userland, "make", make)
    monkeypatch.setattr(image, "_pack", pack)
    (paths.qemu / "x86_64.lock").unlink(missing_ok=True)
    return asked


def test_the_repositorys_recipe_is_well_formed() -> None:
    recipe = userland.parse_recipe(REPO / "qemu" / "image.toml")
    for name in ("python3-pytest", "strongswan-swanctl", "libcharon-extra-plugins", "tcpdump"):
        assert name in recipe.packages


def test_the_repositorys_lock_holds_every_package_of_the_recipe() -> None:
    recipe = userland.parse_recipe(REPO / "qemu" / "image.toml")
    locked = image.read_lock(REPO / "qemu" / "x86_64.lock")
    assert set(recipe.packages) <= set(locked)


def test_an_image_is_made_once(paths: Paths, made: list[dict[str, str]]) -> None:
    first = image.ensure_image(paths, Silent())
    assert image.ensure_image(paths, Silent()) == first
    assert len(made) == 1
    assert image.read_lock(first.lock) == {"bash": "5.2", "dash": "0.5"}


@pytest.mark.parametrize("name", ["image.toml", "init.c", "x86_64.lock"])
def test_every_input_names_the_image(paths: Paths, made: list[dict[str, str]], name: str) -> None:
    first = image.ensure_image(paths, Silent())
    path = paths.qemu / name
    path.write_text((path.read_text() if path.exists() else "") + "\n# changed\n")
    assert image.ensure_image(paths, Silent()).root != first.root
    assert len(made) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "no record", "no image"])
def test_a_damaged_image_is_made_again(
    paths: Paths, made: list[dict[str, str]], damage: str
) -> None:
    root = image.ensure_image(paths, Silent()).root
    whole = root.read_bytes()
    match damage:
        case "cut":
            root.write_bytes(whole[:-1])
        case "flip":
            root.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        case "no record":
            (root.parent / "image.json").unlink()
        case "no image":
            root.unlink()
    assert image.ensure_image(paths, Silent()).root.read_bytes() == whole
    assert len(made) == 2


def test_what_a_killed_run_left_is_swept(paths: Paths, made: list[dict[str, str]]) -> None:
    left = paths.images / ".tmp-1" / "root"
    left.mkdir(parents=True)
    image.ensure_image(paths, Silent())
    assert not left.exists()
    assert made


def test_a_failure_leaves_nothing_half_made(
    paths: Paths, made: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_root: Path, into: Path, _log: Path) -> None:
        raise OSError(28, "No space left on device", str(into))

    monkeypatch.setattr(image, "_pack", full)
    with pytest.raises(InfraError, match="No space left"):
        image.ensure_image(paths, Silent())
    assert [path.name for path in paths.images.iterdir() if path.is_dir()] == []
    assert made


def test_too_little_room_is_said_before_anything_is_fetched(
    paths: Paths, made: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "_ROOM", 1 << 62)
    with pytest.raises(InfraError, match="KPW_CACHE"):
        image.ensure_image(paths, Silent())
    assert made == []


def test_old_images_are_dropped(paths: Paths, made: list[dict[str, str]]) -> None:
    roots = []
    for number in range(image.KEPT + 2):
        (paths.qemu / "init.c").write_text(f"// {number}\n")
        roots.append(image.ensure_image(paths, Silent()).root)
    assert [root.exists() for root in roots] == [False] * 2 + [True] * image.KEPT
    assert len(made) == image.KEPT + 2


def test_relock_writes_what_the_archive_has(paths: Paths, made: list[dict[str, str]]) -> None:
    image.write_lock(paths.qemu / "x86_64.lock", {"bash": "5.1"})
    lock = image.relock(paths, Silent())
    assert image.read_lock(lock) == {"bash": "5.2", "dash": "0.5"}
    assert image.ensure_image(paths, Silent()).changes == ()
    assert made == [{}]


def test_an_image_that_differs_from_its_lock_says_how(
    paths: Paths, made: list[dict[str, str]]
) -> None:
    image.write_lock(paths.qemu / "x86_64.lock", {"bash": "5.1", "gone": "1"})
    found = image.ensure_image(paths, Silent())
    assert found.changes == ("bash 5.1 -> 5.2", "dash absent -> 0.5", "gone 1 -> absent")
    assert made == [{"bash": "5.1", "gone": "1"}]


def test_pins_become_preferences() -> None:
    text = userland.preferences({"b": "1:2-3", "a": "4~rc1"})
    assert text.index("Package: a\nPin: version 4~rc1\n") < text.index("Package: b\n")
    assert "Pin: version 1:2-3\nPin-Priority: 1001\n" in text


def test_versions_are_read_off_file_names() -> None:
    names = ["bash_5.2.15-2+b13_amd64.deb", "ethtool_1%3a6.1-1_amd64.deb", "lock", "partial"]
    assert userland.deb_versions(names) == {"bash": "5.2.15-2+b13", "ethtool": "1:6.1-1"}


def test_the_cause_is_found_in_a_log() -> None:
    log = "I: running apt-get update...\nErr:1 http://x bookworm InRelease\nE: apt-get failed\n"
    assert userland.blame(log) == "Err:1 http://x bookworm InRelease"
    assert "No space" in userland.blame("E: a\ntar: No space left on device\n")
    assert userland.blame("") != ""


def test_a_recipe_shapes_a_tree(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/share/doc/x").mkdir(parents=True)
    (root / "usr/share/base").mkdir()
    (root / "usr/sbin").mkdir()
    (root / "etc").mkdir()
    (root / "usr/share/base/passwd").write_text("root\n")
    recipe = Recipe(
        suite="s",
        packages=(),
        python=("pytest-reportlog",),
        remove=("usr/share/doc", "no/such/*"),
        directories=("mnt",),
        copies={"etc/passwd": "usr/share/base/passwd"},
        appended={"etc/passwd": "tcpdump\n", "etc/hosts": "h\n"},
        links={"usr/sbin/iptables": "iptables-nft"},
    )
    userland.finish(recipe, root)
    assert not (root / "usr/share/doc").exists()
    assert (root / "mnt").is_dir()
    assert (root / "etc/passwd").read_text() == "root\ntcpdump\n"
    assert (root / "etc/hosts").read_text() == "h\n"
    assert (root / "usr/sbin/iptables").readlink() == Path("iptables-nft")
    assert (root / "usr/lib/python3/dist-packages/pytest_reportlog/plugin.py").is_file()


def test_a_missing_python_package_says_how_to_get_it() -> None:
    with pytest.raises(InfraError, match="tools/kpw"):
        userland.python_version("no-such-distribution")


def test_a_wrong_recipe_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "image.toml"
    path.write_text('suite = "s"\npackages = []\nnonsense = 1\n')
    with pytest.raises(UsageError, match="nonsense"):
        userland.parse_recipe(path)


def test_a_suite_nobody_serves_says_what_to_add() -> None:
    with pytest.raises(InfraError, match="no-such-suite"):
        userland.apt_sources("no-such-suite")


def test_the_record_is_of_the_file(paths: Paths, made: list[dict[str, str]]) -> None:
    found = image.ensure_image(paths, Silent())
    record = msgspec.json.decode((found.root.parent / "image.json").read_bytes())
    assert record["sha256"] == found.digest == image.file_digest(found.root)
    assert made


@pytest.mark.real
def test_two_images_of_the_same_lock_are_the_same(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        paths = Paths(REPO, tmp_path / name, tmp_path / "state")
        digests.add(image.ensure_image(paths, Silent()).digest)
    assert len(digests) == 1
