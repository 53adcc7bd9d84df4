# SPDX-License-Identifier: GPL-2.0-only
"""Fragments: what is read, what is refused, who wins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench import fragments
from workbench.errors import UsageError
from workbench.model import KernelTag
from workbench.paths import Paths

TAG = KernelTag.parse("v6.12.107")
REPO = Path(__file__).resolve().parents[2]


def values(text: str, tag: str = "v6.12.107") -> dict[str, str]:
    merged = fragments.merge([fragments.parse(text, "a.config")], KernelTag.parse(tag))
    return {request.symbol: request.value for request in merged.requests}


def test_every_kind_of_value_is_read() -> None:
    text = (
        "# a comment\n\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n"
        'CONFIG_D="a \\"b\\" # c"\nCONFIG_E=-12  # why\nCONFIG_F=0xC0DE\nCONFIG_G=n\n'
    )
    assert values(text) == {
        "A": "y",
        "B": "m",
        "C": "n",
        "D": '"a \\"b\\" # c"',
        "E": "-12",
        "F": "0xC0DE",
        "G": "n",
    }


@pytest.mark.parametrize(
    "line",
    [
        "CONFIG_A",
        "CONFIG_A = y",
        "CONFIG_A=yes",
        "A=y",
        "CONFIG_A=y CONFIG_B=y",
        "# CONFIG_A is not sett",
        "# CONFIG_A is off",
        'CONFIG_A="open',
    ],
)
def test_a_malformed_line_is_refused_with_its_place(line: str) -> None:
    with pytest.raises(UsageError, match=r"^dir/x\.config:3: cannot read") as caught:
        fragments.parse(f"CONFIG_OK=y\n\n{line}\n", "dir/x.config")
    assert caught.value.next_step


@pytest.mark.parametrize(
    "remark",
    [
        "since 6.1",
        "since v6",
        "until v6.1",
        "before",
        "since v6.1 until v6.2",
        "Since v6.1",
        "where it is known",
    ],
)
def test_a_condition_that_is_misspelt_is_no_remark(remark: str) -> None:
    with pytest.raises(UsageError, match=r"^x:1: "):
        fragments.parse(f"CONFIG_A=y  # {remark}\n", "x")


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("since v6.12", ["v6.12.107", "v6.18.15", "v7.1.13"]),
        ("before v6.12", ["v5.10.262", "v6.1.187"]),
        ("since v6.1 before v6.18", ["v6.1.187", "v6.12.107"]),
        # A backport: later 6.1.y and everything from 6.18 on.
        ("since v6.18, v6.1.100", ["v6.1.187", "v6.18.15", "v7.1.13"]),
        ("since v6.18 (renamed then)", ["v6.18.15", "v7.1.13"]),
        ("a remark", ["v5.10.262", "v6.1.187", "v6.12.107", "v6.18.15", "v7.1.13"]),
    ],
)
@pytest.mark.parametrize("line", ["CONFIG_A=y", "# CONFIG_A is not set"])
def test_a_condition_chooses_kernels(line: str, condition: str, holds: list[str]) -> None:
    text = f"{line}  # {condition}\n"
    tags = ["v5.10.262", "v6.1.187", "v6.12.107", "v6.18.15", "v7.1.13"]
    assert [tag for tag in tags if "A" in values(text, tag)] == holds


@pytest.mark.parametrize(
    ("remark", "known"),
    [
        ("where known", True),
        ("since v6.12 where known (the series adds it)", True),
        ("since v6.12", False),
        ("a remark", False),
    ],
)
def test_a_symbol_the_series_adds_need_not_be_known(remark: str, *, known: bool) -> None:
    (request,) = fragments.parse(f"CONFIG_A=y  # {remark}\n", "x")
    assert request.where_known is known


def test_since_and_before_the_same_tag_split_all_kernels() -> None:
    text = "CONFIG_A=y  # before v6.18\n# CONFIG_A is not set  # since v6.18\n"
    assert values(text, "v6.12.107") == {"A": "y"}
    assert values(text, "v6.18.15") == {"A": "n"}


def test_the_later_fragment_wins_and_the_contradiction_is_told() -> None:
    base = fragments.parse("CONFIG_A=y\nCONFIG_B=y\n", "base.config")
    flavour = fragments.parse("CONFIG_B=y\n# CONFIG_A is not set\n", "debug.config")
    merged = fragments.merge([base, flavour], TAG)
    assert merged.text == "# CONFIG_A is not set\nCONFIG_B=y\n"
    assert [str(clash) for clash in merged.clashes] == [
        "debug.config:2: CONFIG_A=n overrides =y of base.config:1"
    ]


def test_a_symbol_twice_in_one_file_is_a_mistake() -> None:
    text = "CONFIG_A=y\nCONFIG_A=y\n"
    with pytest.raises(UsageError, match=r"^x:2: CONFIG_A is set a second time.*line 1"):
        fragments.merge([fragments.parse(text, "x")], TAG)


def test_the_blame_goes_to_the_fragment_that_won() -> None:
    layers = [fragments.parse("CONFIG_A=y\n", "a"), fragments.parse("\nCONFIG_A=m\n", "b")]
    (request,) = fragments.merge(layers, TAG).requests
    assert (request.where, request.value) == ("b:2", "m")


@given(st.text())
def test_any_text_is_taken_or_refused_in_one_line(text: str) -> None:
    said = "x:1: nothing"
    try:
        fragments.parse(text, "x")
    except UsageError as error:
        said = str(error)
    assert re.match(r"x:\d+: ", said)
    assert "\n" not in said


def toy(tmp_path: Path) -> Paths:
    for name in ("base", "arch/x86_64", "extension/one", "extension/two", "flavour/debug"):
        file = tmp_path / "kconfigs" / f"{name}.config"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"CONFIG_{file.stem.upper()}=y\n")
    return Paths(tmp_path, tmp_path / "cache", tmp_path / "state")


def test_the_order_is_base_arch_extensions_flavour(tmp_path: Path) -> None:
    paths = toy(tmp_path)
    chosen = fragments.files(
        paths, arch="x86_64", extensions=("two", "none", "one"), flavour="debug"
    )
    assert [file.stem for file in chosen] == ["base", "x86_64", "two", "one", "debug"]
    plain = fragments.files(paths, arch="x86_64", extensions=(), flavour="plain")
    assert [file.stem for file in plain] == ["base", "x86_64"]
    assert fragments.flavours(paths) == ("plain", "debug")


def test_an_unknown_flavour_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no flavour 'debgu'.*did you mean 'debug'\?"):
        fragments.files(toy(tmp_path), arch="x86_64", extensions=(), flavour="debgu")
    with pytest.raises(UsageError, match=r"no flavour 'zzz'.*known: plain, debug"):
        fragments.files(toy(tmp_path), arch="x86_64", extensions=(), flavour="zzz")
    with pytest.raises(UsageError, match="no architecture 'x86'"):
        fragments.files(toy(tmp_path), arch="x86", extensions=(), flavour="plain")


def test_a_fragment_that_is_not_text_is_refused(tmp_path: Path) -> None:
    paths = toy(tmp_path)
    (paths.kconfigs / "base.config").write_bytes(b"CONFIG_A=y\n\xff\n")
    with pytest.raises(UsageError, match=r"^kconfigs/base\.config: not UTF-8"):
        fragments.load(paths, TAG, arch="x86_64", extensions=(), flavour="plain")


@pytest.mark.parametrize("tag", ["v5.10.262", "v6.1.187", "v6.12.107", "v6.18.15", "v7.1.13"])
def test_our_own_fragments_agree_on_every_kernel(tag: str) -> None:
    paths = Paths(REPO, REPO, REPO)
    extensions = [file.stem for file in (paths.kconfigs / "extension").glob("*.config")]
    merged = fragments.load(
        paths, KernelTag.parse(tag), arch="x86_64", extensions=extensions, flavour="plain"
    )
    assert merged.clashes == ()
    assert len(merged.requests) > 200
