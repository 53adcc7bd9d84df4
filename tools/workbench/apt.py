# SPDX-License-Identifier: GPL-2.0-only
"""Which Debian archives apt uses on this machine, so that no host is written down here."""

from __future__ import annotations

import shlex
import shutil

import msgspec

from workbench import process


class Base(msgspec.Struct, frozen=True):
    """One archive apt knows: its address ends with a slash; ``proxy`` is apt's own."""

    url: str
    security: bool
    proxy: str = ""


def bases() -> tuple[Base, ...]:
    """Return the Debian archives apt is set up with; none on a machine without apt."""
    if shutil.which("apt-get") is None:
        return ()
    origins = {line[0]: line[1] for line in _targets("$(REPO_URI)", "$(ORIGIN)") if line[1:]}
    found: dict[str, bool] = {}
    for url, release, component in _targets("$(REPO_URI)", "$(RELEASE)", "$(COMPONENT)"):
        # A repository that never was updated has no origin yet.
        if component != "main" or origins.get(url, "Debian") != "Debian":
            continue
        if url.startswith(("http://", "https://")):
            security = release.endswith(("-security", "/updates"))
            found[url] = found.get(url, False) or security
    proxy = _proxy() if found else ""
    return tuple(Base(url.rstrip("/") + "/", sec, proxy) for url, sec in found.items())


def _targets(*fields: str) -> list[list[str]]:
    options = [] if "$(ORIGIN)" in fields else ["--no-release-info"]
    argv = ["apt-get", "indextargets", *options, "--format", " ".join(fields)]
    lines = process.run(argv, check=False).stdout.splitlines()
    return [words for line in lines if len(words := line.split()) == len(fields)]


def _proxy() -> str:
    """Return the proxy apt reaches the archive through; behind one, there is no other way."""
    argv = ["apt-config", "shell", "P", "Acquire::http::Proxy"]
    said = shlex.split(process.run(argv, check=False).stdout)
    proxy = said[0].partition("=")[2] if said else ""
    return "" if proxy.upper() == "DIRECT" else proxy
