# SPDX-License-Identifier: GPL-2.0-only
"""Which objects a configuration builds, in the words of the tree's own Makefiles.

From 5.19 on make compiles any object it is asked for, configured or not, and
before that it refuses some; so we ask first. A folder's Makefile is read with
the configuration's symbols, as scripts/Makefile.build does it, and lists what
it builds and where it goes down.
"""

from __future__ import annotations

import posixpath
from functools import cached_property
from typing import TYPE_CHECKING, Final

from workbench import process
from workbench.configure import recorded_environment
from workbench.errors import InfraError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workbench.configure import Workplace

_ARCH_DEPTH: Final = 2
_ASK: Final = """\
include include/config/auto.conf
srctree := {src}
objtree := .
obj := {folder}
src := {folder}
kpw-here := {src}/{folder}
kpw-list:
kpw-parts = $(foreach one,$(1),$(or $(strip $(foreach end,-objs -y -m,$($(one:.o=$(end))))),$(one)))
include $(firstword $(wildcard $(kpw-here)/Kbuild $(kpw-here)/Makefile))
$(info objects $(call kpw-parts,$(filter %.o,$(obj-y) $(obj-m) $(lib-y) $(lib-m) $(extra-y))))
$(info folders $(patsubst %/,%,$(filter %/,$(obj-y) $(obj-m)) $(subdir-y) $(subdir-m)))
kpw-list: ; @:
"""


class ConfiguredObjects:
    """What one configured output directory builds; folders are read when they are asked for."""

    def __init__(self, place: Workplace) -> None:
        """Stand before a directory that :func:`workbench.configure.configure` was done with."""
        self._place = place
        self._folders: dict[str, tuple[frozenset[str], frozenset[str]]] = {}

    def among(self, objects: Iterable[str]) -> tuple[str, ...]:
        """Return those of ``objects`` that are built, sorted."""
        return tuple(sorted(each for each in set(objects) if self._builds(each)))

    def _builds(self, name: str) -> bool:
        """Look in every folder above: a Makefile may name what lies deeper."""
        above = _ancestors(name)
        return any(self._is_reached(folder) and name in self._read(folder)[0] for folder in above)

    def _is_reached(self, folder: str) -> bool:
        parts = folder.split("/")
        if len(parts) == (_ARCH_DEPTH if parts[0] == "arch" else 1):
            return folder in self._tops
        return any(
            self._is_reached(above) and folder in self._read(above)[1]
            for above in _ancestors(folder)
        )

    @cached_property
    def _tops(self) -> frozenset[str]:
        """The folders make starts from: all there are, of arch the one configured."""
        record = self._place.out / "include/config/auto.conf.cmd"
        arch = recorded_environment(record.read_text(encoding="utf-8")).get("SRCARCH", "")
        tops = {entry.name for entry in self._place.src.iterdir() if entry.is_dir()}
        return frozenset((tops - {"arch"}) | {f"arch/{arch}"})

    def _read(self, folder: str) -> tuple[frozenset[str], frozenset[str]]:
        if folder not in self._folders:
            self._folders[folder] = self._ask(folder)
        return self._folders[folder]

    def _ask(self, folder: str) -> tuple[frozenset[str], frozenset[str]]:
        place = self._place
        files = (place.src / folder / name for name in ("Kbuild", "Makefile"))
        if not any(file.is_file() for file in files):
            return frozenset(), frozenset()
        argv = ("make", "-r", "-s", "--no-print-directory", "-f", "-")
        done = process.run(
            place.inside(argv, cwd=place.out),
            env=place.environment(),
            stdin=_ASK.format(src=place.src, folder=folder).encode(),
            check=False,
        )
        if done.returncode != 0:
            raise InfraError(
                done.last_line(),
                where=f"{place.src}/{folder}/Makefile",
                next_step="see what that Makefile needs of make",
            )
        objects: set[str] = set()
        folders: set[str] = set()
        for line in done.stdout.splitlines():
            word, _, names = line.partition(" ")
            below = (posixpath.normpath(posixpath.join(folder, name)) for name in names.split())
            if word == "objects":
                objects.update(below)
            elif word == "folders":
                folders.update(below)
        return frozenset(objects), frozenset(folders)


def _ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(len(parts) - 1, 0, -1)]
