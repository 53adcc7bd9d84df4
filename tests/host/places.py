# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures: directories of one's own, and the places of :mod:`toy_source`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from toy_server import ToyServer, serving
from toy_source import OTHER, Clone, entry, tarball, write

from workbench import apt
from workbench.apt import Base
from workbench.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "patches").mkdir()
    return Paths(tmp_path, tmp_path / "cache", tmp_path / "state")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyServer]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "KPW_KERNEL_KEYRING"):
        monkeypatch.delenv(name, raising=False)
    with serving() as toy:
        monkeypatch.setattr(apt, "bases", lambda: (Base(f"{toy.url}/d/", security=False),))
        yield toy


@pytest.fixture
def clone(tmp_path: Path, paths: Paths) -> Clone:
    write(paths, entry(tarball()) + OTHER)
    return Clone(tmp_path / "my linux", paths)
