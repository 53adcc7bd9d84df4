# SPDX-License-Identifier: GPL-2.0-only
"""From merged fragments to a .config that is what was asked for, or the reasons why not.

The kernel's own ``conf`` writes it; :mod:`workbench.kconfig` checks it. Both
are skipped when nothing they depend on has changed, and .config keeps its
time, so that make has nothing to do either.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench import atomic, process, sandbox, toolchain
from workbench.model import ResolvedConfig, UnmetSymbol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workbench.fragments import MergedFragments, Request
    from workbench.gitstore import Store
    from workbench.paths import Paths
    from workbench.recipe import Recipe

_RECIPE: Final = 1
"""Raise it when this module comes to a different .config from the same inputs."""

_PYTHON: Final = tuple(dict.fromkeys((sys.base_prefix, sys.prefix)))
_ENVIRONMENT = re.compile(r'^ifneq "\$\((\w+)\)" "(.*)"$', re.MULTILINE)


@dataclass(frozen=True)
class Workplace:
    """Where one kernel is configured and compiled, and with what.

    ``src`` and ``out`` lie side by side in one directory; ``tree`` is the id
    of what ``src`` holds; ``log`` receives all output.
    """

    paths: Paths
    src: Path
    out: Path
    log: Path
    tree: str
    recipe: Recipe

    def make(self, *goals: str) -> tuple[str, ...]:
        """Return the sandboxed command line of make for these goals."""
        words = ("make", "-C", str(self.src), f"O=../{self.out.name}")
        variables = toolchain.make_words(self.recipe)
        return self.inside((*words, *variables, *goals), cwd=self.out.parent)

    def inside(self, command: Sequence[str | Path], *, cwd: Path) -> tuple[str, ...]:
        """Return a command line that runs in the sandbox of this workplace."""
        return sandbox.argv(
            command,
            cwd=cwd,
            writable=(self.out, self.paths.ccache),
            # The check of .config is our own Python; all of it may lie under /tmp.
            readable=(self.src, self.paths.repo / "tools", *map(Path, _PYTHON)),
        )

    def environment(self) -> Mapping[str, str]:
        """Return the whole environment of what runs here."""
        return toolchain.environment(self.paths, self.out.parent)


@dataclass(frozen=True)
class ConfFailure:
    """The kernel's own configuration step broke; the log says how."""

    goal: str


def configure(
    store: Store,
    place: Workplace,
    merged: MergedFragments,
    must: Sequence[Request] | None = None,
) -> ResolvedConfig | ConfFailure:
    """Bring ``out/.config`` to what the fragments ask; unmet symbols are in the result.

    ``must`` are the requests that have to come out (None: all of them).
    """
    inputs = _inputs(store, place, merged)
    memo = place.out / ".kpw-config.json"
    config = place.out / ".config"
    if _is_current(memo, inputs, config):
        return _resolved(config, ())
    memo.unlink(missing_ok=True)
    wanted = place.out / ".kpw-wanted"
    atomic.write(wanted, merged.text.encode())
    env = {**place.environment(), "KCONFIG_ALLCONFIG": str(wanted)}
    for goal in ("allnoconfig", "syncconfig"):
        done = process.run(place.make(goal), env=env, log=place.log, check=False)
        if done.returncode != 0:
            return ConfFailure(goal)
    resolved = _resolved(config, _verify(place, merged.requests if must is None else must))
    if not resolved.unmet:
        record = {"inputs": inputs, "config": resolved.digest}
        atomic.write(memo, json.dumps(record).encode())
    return resolved


def recorded_environment(auto_conf_cmd: str) -> dict[str, str]:
    """Return the variables Kconfig read, as make recorded them in auto.conf.cmd."""
    return dict(_ENVIRONMENT.findall(auto_conf_cmd))


def _verify(place: Workplace, must: Sequence[Request]) -> tuple[UnmetSymbol, ...]:
    requests = {request.symbol: request for request in must}
    question = {
        "config": str(place.out / ".config"),
        "wishes": [[each.symbol, each.value, each.where_known] for each in must],
    }
    recorded = (place.out / "include/config/auto.conf.cmd").read_text(encoding="utf-8")
    env = {
        **place.environment(),
        **recorded_environment(recorded),
        "PYTHONPATH": str(place.paths.repo / "tools"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = process.run(
        place.inside((sys.executable, "-m", "workbench.kconfig"), cwd=Path("/tmp")),  # noqa: S108
        env=env,
        stdin=json.dumps(question).encode(),
    )
    return tuple(
        UnmetSymbol(
            symbol=symbol,
            wanted=requests[symbol].value,
            got=got,
            fragment=requests[symbol].fragment,
            line=requests[symbol].line,
            reason=reason,
        )
        for symbol, got, reason in json.loads(done.stdout)
    )


def _inputs(store: Store, place: Workplace, merged: MergedFragments) -> str:
    """Name all that decides .config: Kconfig files, the scripts they run, what was asked."""
    listing = store.git("ls-tree", "-r", "-z", place.tree)
    kconfig = (
        line
        for line in listing.split("\0")
        for path in [line.partition("\t")[2]]
        if path.rpartition("/")[2].startswith("Kconfig")
        or path == "Makefile"
        or path.startswith("scripts/")
        or (path.startswith("arch/") and path.endswith("/Makefile"))
    )
    parts = (
        str(_RECIPE),
        toolchain.find(place.recipe).identity,
        *toolchain.make_words(place.recipe),
        merged.text,
        *kconfig,
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _is_current(memo: Path, inputs: str, config: Path) -> bool:
    try:
        record = json.loads(memo.read_bytes())
        text = config.read_bytes()
    except (FileNotFoundError, ValueError):
        return False
    return bool(record == {"inputs": inputs, "config": hashlib.sha256(text).hexdigest()})


def _resolved(config: Path, unmet: tuple[UnmetSymbol, ...]) -> ResolvedConfig:
    data = config.read_bytes()
    return ResolvedConfig(data.decode(), hashlib.sha256(data).hexdigest(), unmet)
