# SPDX-License-Identifier: GPL-2.0-only
"""Where everything lies: the repository's rooms and the XDG directories."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import platformdirs


@dataclass(frozen=True)
class Paths:
    """The directories of one run; tests give their own.

    ``repo`` is the checkout, ``cache`` what can be made again (kernel store,
    source trees, builds, guest image, ccache), ``state`` what cannot
    (reports of past runs).
    """

    repo: Path
    cache: Path
    state: Path

    @classmethod
    def default(cls) -> Paths:
        """Take ``$KPW_CACHE`` and ``$KPW_STATE``, else the XDG directories.

        Not cached: a test that sets the environment sees its own.
        """
        cache = os.environ.get("KPW_CACHE") or platformdirs.user_cache_dir("kpw")
        state = os.environ.get("KPW_STATE") or platformdirs.user_state_dir("kpw")
        repo = Path(__file__).resolve().parents[2]
        return cls(repo, Path(cache).absolute(), Path(state).absolute())

    @cached_property
    def patches(self) -> Path:
        """The extensions and kernels.toml."""
        return self.repo / "patches"

    @cached_property
    def kconfigs(self) -> Path:
        """The configuration fragments."""
        return self.repo / "kconfigs"

    @cached_property
    def qemu(self) -> Path:
        """Machine descriptions, init template, guest image recipe."""
        return self.repo / "qemu"

    @cached_property
    def guest_tests(self) -> Path:
        """The selftests that run in the guest."""
        return self.repo / "tests" / "guest"

    @cached_property
    def store(self) -> Path:
        """The bare git store with every imported kernel."""
        return self.cache / "store.git"

    @cached_property
    def downloads(self) -> Path:
        """Tarballs on their way into the store."""
        return self.cache / "downloads"

    @cached_property
    def trees(self) -> Path:
        """One source tree per kernel: ``<name>/src`` and ``<name>/out-<config>``."""
        return self.cache / "trees"

    @cached_property
    def kernels(self) -> Path:
        """Finished builds: ``<key>/{vmlinux,config,build.json,build.log}``."""
        return self.cache / "kernels"

    @cached_property
    def lint(self) -> Path:
        """What 'kpw lint' found, by content: ``<key>.json``."""
        return self.cache / "lint"

    @cached_property
    def images(self) -> Path:
        """Guest images: ``<digest>/{root.erofs,packages.lock}``."""
        return self.cache / "images"

    @cached_property
    def ccache(self) -> Path:
        """The compiler cache, shared by all trees."""
        return self.cache / "ccache"

    @cached_property
    def runs(self) -> Path:
        """Logs and reports of past runs."""
        return self.state / "runs"

    @cached_property
    def exports(self) -> Path:
        """What was exported as mails: ``<kernel>/<extensions>/v<N>/``."""
        return self.state / "exports"

    @cached_property
    def resolve(self) -> Path:
        """Conflicts somebody is at: ``<kernel>/<extension>-<number>/{tree,state.json}``."""
        return self.state / "resolve"

    @cached_property
    def edit(self) -> Path:
        """Patches somebody edits: ``<extension>/{canonical,since-<tag>}/{tree,state.json}``."""
        return self.state / "edit"
