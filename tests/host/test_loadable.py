# SPDX-License-Identifier: GPL-2.0-only
"""Modules: made with a kernel whose configuration has any, kept and looked at beside it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest
from test_build import FILES, KCONFIG, MAKEFILE, Shop

from workbench import build
from workbench.build import BuildRequest
from workbench.model import BuildFailure
from workbench.progress import Silent

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.model import BuiltKernel

NAMED = b"crypto/toy-mod.ko"
# As the kernel's: another goal of the same make, and a list of what it made.
MODULAR = (
    MAKEFILE.replace(b"LEVEL|SLOW", b"LEVEL|SLOW|MODULES")
    + b"""\
modules: $(out)/vmlinux
	@mkdir -p $(out)/crypto
	@echo "  CC [M]  crypto/toy-mod.o"
	@$(CC) -g -c -o $(out)/crypto/toy-mod.ko toy-mod.c
	@echo "crypto/toy-mod.ko" > $(out)/modules.order
"""
)
MODULE = b"int toy(int x) { return x + 1; }\n"


class Modular(Shop):
    """A toy kernel that can have modules, and a flavour with them."""

    def __init__(self, root: Path) -> None:
        """Import the kernel and write the fragments."""
        super().__init__(root)
        self.kernel = self.toy.kernel("v6.12.1", self.files())
        self.fragment("base", "CONFIG_KNOWN=y\n# CONFIG_MODULES is not set\n")
        self.fragment("flavour/modules", "CONFIG_MODULES=y\n")

    def files(
        self, named: bytes = NAMED, source: bytes = MODULE
    ) -> dict[str, bytes | tuple[str, bytes]]:
        """Return the tree; ``named`` is how its list spells the module."""
        kconfig = KCONFIG + b'config MODULES\n\tbool "Modules"\n'
        makefile = MODULAR.replace(b'"' + NAMED, b'"' + named)
        return {**FILES, "Makefile": makefile, "Kconfig": kconfig, "toy-mod.c": source}

    def modular(self) -> BuiltKernel:
        return self.good(flavour="modules")


@pytest.fixture
def shop(tmp_path: Path) -> Modular:
    return Modular(tmp_path)


@pytest.mark.parametrize("named", [NAMED, b"crypto/toy-mod.o"], ids=["6.1", "6.12"])
def test_a_kernel_with_modules_is_kept_with_them(shop: Modular, named: bytes) -> None:
    done = shop.good(shop.toy.tree(shop.files(named)), flavour="modules")
    (module,) = done.modules
    assert module == done.vmlinux.parent / "modules" / "toy_mod.ko"
    data = module.read_bytes()
    assert data.startswith(b"\x7fELF")
    assert b".debug_info" not in data
    again = shop.good(shop.toy.tree(shop.files(named)), flavour="modules")
    assert (again.cached, again.modules) == (True, done.modules)


def test_one_make_makes_both(shop: Modular) -> None:
    log = shop.modular().log.read_text()
    assert log.index("CC      b.o") < log.index("CC [M]  crypto/toy-mod.o")


def test_without_modules_nothing_is_made_or_kept(shop: Modular) -> None:
    done = shop.good()
    assert done.modules == ()
    assert "[M]" not in done.log.read_text()
    assert not (done.vmlinux.parent / "modules").exists()
    assert done.key != shop.modular().key


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_a_module_that_is_not_what_was_built_is_built_again(shop: Modular, how: str) -> None:
    first = shop.modular()
    (module,) = first.modules
    whole = module.read_bytes()
    if how == "lost":
        module.unlink()
    else:
        module.write_bytes(whole[:-1] + b"?")
    again = shop.modular()
    assert not again.cached
    assert again.modules[0].read_bytes() == whole


def test_a_record_of_before_there_were_modules_is_good(shop: Modular) -> None:
    first = shop.good()
    record = msgspec.json.decode((first.vmlinux.parent / "build.json").read_bytes())
    assert set(record["files"]) == {"vmlinux", "config"}
    assert shop.good().cached


def test_what_goes_from_one_series_to_the_next_is_not_kept(shop: Modular) -> None:
    shop.modular()
    stale = shop.room / "out-x86_64-modules" / ".kpw-modules" / "gone.ko"
    stale.write_bytes(b"of another series")
    shutil.rmtree(shop.paths.kernels)
    assert [module.name for module in shop.modular().modules] == ["toy_mod.ko"]


def test_a_module_that_does_not_build_fails_the_build(shop: Modular) -> None:
    tree = shop.toy.tree(shop.files(source=b"broken\n"))
    request = BuildRequest(shop.kernel, tree, flavour="modules")
    failure = build.build(shop.paths, shop.toy.store, request, Silent())
    assert isinstance(failure, BuildFailure)
    assert failure.reason.startswith("toy-mod.c:1:")
