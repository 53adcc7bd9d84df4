# SPDX-License-Identifier: GPL-2.0-only
"""Why a symbol did not come out: on Kconfig files of every age."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from workbench import kconfig
from workbench.kconfig import Wish

if TYPE_CHECKING:
    from pathlib import Path

KCONFIG = """\
mainmenu "Toy"

config MODULES
	bool "Modules"
	modules

config CORE
	bool "Core"

config EXPERT
	bool "Expert"

menu "Network"
	depends on CORE

config NET
	bool "Network"

config DRIVER
	tristate "Driver"
	depends on NET
	depends on PCI || USB
	select LIB

endmenu

config PCI
	bool "PCI"

config USB
	bool "USB"

config LIB
	bool

config FORCED
	bool "Forced"

config FORCER
	bool "Forcer"
	select FORCED

config HIDDEN
	bool "Hidden" if EXPERT
	default y

config NUMBER
	int "Number"
	range 2 8
	default 4

config ADDRESS
	hex "Address"
	default 0x10

config TEXT
	string "Text"
	default "x"

config NEVER
	bool "Never"
	depends on $(shell,echo n)

choice
	prompt "Which"
	default FIRST

config FIRST
	bool "First"

config SECOND
	bool "Second"

endchoice

config NEW_NAME
	bool "New"
	default OLD_NAME

config OLD_NAME
	bool
	transitional

config PICKY
	bool "Picky"
	depends on USB if CORE # only there
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> kconfig.Tree:
    (tmp_path / "Kconfig").write_text(KCONFIG)
    monkeypatch.setenv("srctree", str(tmp_path))
    return kconfig.Tree()


def why(tree: kconfig.Tree, tmp_path: Path, config: str, symbol: str, wanted: str) -> str:
    """Return the reason a wish is unmet in a .config; "" when it is met."""
    file = tmp_path / ".config"
    file.write_text(config)
    tree.load_config(str(file))
    found = kconfig.unmet(tree, [Wish(symbol, wanted)], config)
    return found[0].reason if found else ""


@pytest.mark.parametrize(
    ("config", "symbol", "wanted", "reason"),
    [
        ("CONFIG_CORE=y\n", "CORE", "y", ""),
        ("", "CORE", "n", ""),
        ("CONFIG_NUMBER=4\n", "NUMBER", "4", ""),
        ("CONFIG_ADDRESS=0x1f\n", "ADDRESS", "0x1F", ""),
        ("", "NET", "y", "it depends on CONFIG_CORE, which is off"),
        ("CONFIG_CORE=y\n", "DRIVER", "y", "it depends on CONFIG_NET, which is off"),
        (
            "CONFIG_CORE=y\nCONFIG_NET=y\n",
            "DRIVER",
            "y",
            "it depends on (CONFIG_PCI || CONFIG_USB), all of them off",
        ),
        ("", "LIB", "y", "it has no prompt; CONFIG_DRIVER selects it: ask for one of these"),
        (
            "CONFIG_FORCER=y\nCONFIG_FORCED=y\n",
            "FORCED",
            "n",
            "it is selected by CONFIG_FORCER",
        ),
        ("CONFIG_HIDDEN=y\n", "HIDDEN", "n", "it cannot be set here: it is on by default"),
        ("", "HIDDEN", "y", "it can be set only with CONFIG_EXPERT, which is off"),
        ("CONFIG_NUMBER=8\n", "NUMBER", "99", "it is int with the range 2 to 8"),
        ('CONFIG_TEXT="x"\n', "TEXT", "y", "it is string, and y is no value for it"),
        ("", "CORE", "3", "it is bool: write y or n"),
        (
            "",
            "NEVER",
            "y",
            "it depends on a condition that is always n here (a test of the compiler, say)",
        ),
        (
            "CONFIG_FIRST=y\n",
            "SECOND",
            "y",
            "its choice went to CONFIG_FIRST, and only one of them can be on",
        ),
        ("", "OLD_NAME", "y", "it was renamed: write CONFIG_NEW_NAME"),
        (
            "CONFIG_CORE=y\n",
            "PICKY",
            "y",
            "it depends on (CONFIG_USB || !CONFIG_CORE), all of them off",
        ),
    ],
)
def test_the_reason_names_who_is_to_blame(
    tree: kconfig.Tree, tmp_path: Path, config: str, symbol: str, wanted: str, reason: str
) -> None:
    assert why(tree, tmp_path, config, symbol, wanted) == reason


@pytest.mark.parametrize("wanted", ["y", "n"])
def test_an_unknown_symbol_is_unmet_even_when_it_was_to_be_off(
    tree: kconfig.Tree, tmp_path: Path, wanted: str
) -> None:
    reason = why(tree, tmp_path, "", "DRIVRE", wanted)
    assert reason.startswith("this kernel has no such symbol; did you mean CONFIG_DRIVER?")
    far = why(tree, tmp_path, "", "QQQQ", wanted)
    assert far == "this kernel has no such symbol; limit the line with '# since' or '# before'"


def test_a_wish_that_is_met_is_not_told(tree: kconfig.Tree, tmp_path: Path) -> None:
    config = "CONFIG_CORE=y\nCONFIG_NET=y\n"
    (tmp_path / ".config").write_text(config)
    tree.load_config(str(tmp_path / ".config"))
    wishes = [Wish("CORE", "y"), Wish("NET", "n"), Wish("USB", "y"), Wish("PCI", "n")]
    found = kconfig.unmet(tree, wishes, config)
    assert [(item.symbol, item.got) for item in found] == [("NET", "y"), ("USB", "n")]


def test_a_symbol_that_need_not_be_known_is_asked_for_where_it_is(
    tree: kconfig.Tree, tmp_path: Path
) -> None:
    config = "CONFIG_CORE=y\n"
    (tmp_path / ".config").write_text(config)
    tree.load_config(str(tmp_path / ".config"))
    wishes = [Wish("NEVER_HEARD_OF", "y", where_known=True), Wish("NET", "y", where_known=True)]
    found = kconfig.unmet(tree, wishes, config)
    assert [(item.symbol, item.got) for item in found] == [("NET", "n")]


def test_new_words_are_rewritten_line_for_line() -> None:
    seen: set[str] = set()
    old = kconfig.modernise(KCONFIG, seen)
    assert seen == {"OLD_NAME"}
    assert old.count("\n") == KCONFIG.count("\n")
    assert "\toption modules\n" in old
    assert "\tdepends on (USB) || !(CORE)\n" in old


def test_a_comment_with_an_if_is_no_condition() -> None:
    line = "\tdepends on MMC || !MMC # do not allow y if MMC=m\n"
    assert kconfig.modernise(line, set()) == line
