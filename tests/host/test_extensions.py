# SPDX-License-Identifier: GPL-2.0-only
"""An extension is a folder; what is wrong with one is said with file and key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from workbench.errors import ExitCode, UsageError
from workbench.extensions import load_extensions, patches_for, select
from workbench.model import KernelTag
from workbench.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

TOML = """\
# SPDX-License-Identifier: GPL-2.0-only
id = "E{number}"
summary = "one line"
base = "v5.10.262"
{more}
"""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(tmp_path, tmp_path / "cache", tmp_path / "state")
    found.patches.mkdir()
    return found


def add(paths: Paths, name: str, number: int, more: str = "", files: tuple[str, ...] = ()) -> Path:
    folder = paths.patches / name
    folder.mkdir()
    (folder / "extension.toml").write_text(TOML.format(number=number, more=more))
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()
    return folder


def test_extensions_are_ordered_by_what_they_require_then_by_id(paths: Paths) -> None:
    add(paths, "late", 10)
    add(paths, "early", 2)
    add(paths, "first", 1, 'requires = ["last"]')
    add(paths, "last", 20)
    assert [each.name for each in load_extensions(paths)] == ["early", "late", "last", "first"]


def test_an_exemption_from_a_lint_variant_has_a_reason(paths: Paths) -> None:
    folder = add(paths, "spi", 2, '[lint_not_applicable]\nno-ipv6 = "it is IPv6"\n')
    (extension,) = load_extensions(paths)
    assert extension.lint_not_applicable == (("no-ipv6", "it is IPv6"),)
    text = (folder / "extension.toml").read_text()
    (folder / "extension.toml").write_text(text.replace('"it is IPv6"', '""'))
    with pytest.raises(UsageError, match=r"lint_not_applicable\.no-ipv6: one line is needed"):
        load_extensions(paths)


def test_a_folder_describes_its_patches_and_variants(paths: Paths) -> None:
    more = 'upstream_since = ["v7.0"]\n[variants."v6.12"]\nbase = "v6.12.107"\n'
    add(paths, "spi", 2, more, ("0002-b.patch", "0001-a.patch", "since-v6.12/0001-c.patch"))
    (extension,) = load_extensions(paths)
    assert [path.name for path in extension.patches] == ["0001-a.patch", "0002-b.patch"]
    assert extension.base == KernelTag(5, 10, 262)
    assert extension.variants[0].since == KernelTag(6, 12)
    assert extension.variants[0].base == KernelTag(6, 12, 107)
    assert extension.is_upstream(KernelTag.parse("v7.1.13"))


def test_the_youngest_variant_that_speaks_for_a_tag_wins_patch_by_patch(paths: Paths) -> None:
    more = "".join(
        f'[variants."{since}"]\nbase = "{base}"\n'
        for since, base in (("v6.1", "v6.1.187"), ("v6.12", "v6.12.107"), ("v6.12.90", "v6.12.95"))
    )
    files = ("0001-a.patch", "0002-b.patch", "since-v6.1/0001-c.patch", "since-v6.12/0003-d.patch")
    add(paths, "spi", 2, more, (*files, "since-v6.12.90/0001-e.patch"))
    (extension,) = load_extensions(paths)

    def chosen(tag: str) -> list[str]:
        found = patches_for(extension, KernelTag.parse(tag))
        return [f"{path.name} {base}" for path, base in found]

    b = "0002-b.patch v5.10.262"
    assert chosen("v5.10.262") == ["0001-a.patch v5.10.262", b]
    assert chosen("v6.1.187") == ["0001-c.patch v6.1.187", b]
    assert chosen("v6.12.38") == ["0001-c.patch v6.1.187", b, "0003-d.patch v6.12.107"]
    assert chosen("v6.12.107") == ["0001-e.patch v6.12.95", b, "0003-d.patch v6.12.107"]
    assert chosen("v6.18.15") == ["0001-c.patch v6.1.187", b, "0003-d.patch v6.12.107"]


def test_an_upstream_extension_has_no_patch(paths: Paths) -> None:
    add(paths, "mark", 6, 'upstream_since = ["v4.19"]', ("0001-a.patch",))
    (extension,) = load_extensions(paths)
    assert patches_for(extension, KernelTag.parse("v6.12.107")) == ()
    assert len(patches_for(extension, KernelTag.parse("v4.14.177"))) == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("basse = 1", ["unknown field `basse`", "the keys are id, summary, base"]),
        ("uapi = 5", ["Expected `str`, got `int`", "`uapi`"]),
        ('upstream_since = ["6.x"]', ["upstream_since: '6.x' is not a kernel tag"]),
        ('requires = ["spj"]', ["requires: there is no extension 'spj'", "did you mean 'spi'"]),
        ('[variants."v6.1"]\nbase = "v6.1.187"', ['variants."v6.1"', "no folder since-v6.1"]),
        ("x = [", ["not TOML"]),
        ('requires = ["spi"]', ["require each other: spi -> spi"]),
    ],
)
def test_a_bad_description_is_told_with_its_key(paths: Paths, more: str, words: list[str]) -> None:
    add(paths, "spi", 2, more)
    with pytest.raises(UsageError) as caught:
        load_extensions(paths)
    assert caught.value.exit_code is ExitCode.USAGE
    for word in (*words, "patches"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("first.patch",), "starts with its number"),
        (("0001-a.patch", "0001-b.patch"), "same number"),
        (("since-v6.x/0001-a.patch",), "'v6.x' is not a kernel tag"),
        (("sinc-v6.1/0001-a.patch",), "named since-<tag>"),
        (("since-v6.1/0001-a.patch",), 'variants."v6.1": missing'),
    ],
)
def test_a_bad_folder_is_told(paths: Paths, files: tuple[str, ...], words: str) -> None:
    add(paths, "spi", 2, files=files)
    with pytest.raises(UsageError, match=words):
        load_extensions(paths)


def test_a_variant_must_be_made_on_a_tag_it_speaks_for(paths: Paths) -> None:
    more = '[variants."v6.12"]\nbase = "v6.1.187"'
    add(paths, "spi", 2, more, ("0001-a.patch", "since-v6.12/0001-b.patch"))
    with pytest.raises(UsageError, match=r"v6\.12 does not speak for v6\.1\.187"):
        load_extensions(paths)


def test_patches_need_a_base_and_a_description(paths: Paths) -> None:
    folder = add(paths, "spi", 2, files=("0001-a.patch",))
    (folder / "extension.toml").write_text('id = "E2"\nsummary = "s"\n')
    with pytest.raises(UsageError, match="base: missing"):
        load_extensions(paths)
    (folder / "extension.toml").unlink()
    with pytest.raises(UsageError, match=r"no extension\.toml"):
        load_extensions(paths)


def test_a_folder_without_anything_is_not_an_extension(paths: Paths) -> None:
    (paths.patches / "left-over").mkdir()
    (paths.patches / "kernels.toml").touch()
    assert load_extensions(paths) == ()


def test_two_extensions_cannot_share_an_id(paths: Paths) -> None:
    add(paths, "a", 2)
    add(paths, "b", 2)
    with pytest.raises(UsageError, match="'e2' already means a"):
        load_extensions(paths)


def test_select_takes_names_and_ids_and_brings_what_is_required(paths: Paths) -> None:
    add(paths, "a", 1)
    add(paths, "b", 2, 'requires = ["a"]')
    add(paths, "c", 3)
    loaded = load_extensions(paths)
    assert [each.name for each in select(loaded)] == ["a", "b", "c"]
    assert [each.name for each in select(loaded, only=["E2"])] == ["a", "b"]
    assert [each.name for each in select(loaded, without=["c"])] == ["a", "b"]
    assert [each.name for each in select(loaded, only=["c"], without=["a"])] == ["c"]


def test_select_refuses_what_makes_no_sense(paths: Paths) -> None:
    add(paths, "alpha", 1)
    add(paths, "beta", 2, 'requires = ["alpha"]')
    loaded = load_extensions(paths)
    with pytest.raises(UsageError, match=r"no extension 'alhpa' \(did you mean 'alpha'"):
        select(loaded, only=["alhpa"])
    with pytest.raises(UsageError, match="beta requires alpha"):
        select(loaded, without=["alpha"])
    with pytest.raises(UsageError, match="both asked for and left out"):
        select(loaded, only=["beta"], without=["beta"])
