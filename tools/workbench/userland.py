# SPDX-License-Identifier: GPL-2.0-only
"""Make the guest's userland: Debian packages extracted by mmdebstrap, then finished by us.

No maintainer script runs, so neither root nor a mount is needed, and the same
packages give the same files. What those scripts would have done and the guest
needs is said by the recipe.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from workbench import process
from workbench.errors import InfraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_INDEX = "$(CODENAME)\t$(RELEASE)\tdeb $(REPO_URI) $(RELEASE) $(COMPONENT)"
_POCKETS = ("", "-updates", "-security")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MERGED = ("bin", "sbin", "lib", "lib64")
_DEB = re.compile(r"(?P<package>[^_]+)_(?P<version>[^_]+)_[^_]+\.deb")
_ARCHIVES = "var/cache/apt/archives"


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """qemu/image.toml, its paths relative to the guest's root."""

    suite: str
    packages: tuple[str, ...]
    python: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    copies: dict[str, str] = {}
    appended: dict[str, str] = {}
    links: dict[str, str] = {}


@dataclass(frozen=True)
class Plan:
    """One userland to make: for Debian's ``arch``, at the ``pins`` (package -> version).

    ``init`` is the source of PID 1, ``compiler`` the words that compile it,
    ``preload`` what runs in a guest that a snapshot is made of.
    ``log`` gets what the programs say. A pinned version that the archive has
    no more gives way to the archive's own.
    """

    recipe: Recipe
    arch: str
    init: Path
    preload: Path
    compiler: tuple[str, ...]
    pins: Mapping[str, str]
    log: Path


def parse_recipe(path: Path) -> Recipe:
    """Read a recipe; UsageError names what is wrong with it."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Recipe)
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(str(error), where=str(path), next_step="mend the file") from error


def make(plan: Plan, root: Path) -> dict[str, str]:
    """Make the tree ``root`` (must not exist) and return package -> version."""
    _extract(plan, root)
    versions = deb_versions(path.name for path in (root / _ARCHIVES).glob("*.deb"))
    # Before finish(): its own cache, which holds times of this host, goes there.
    process.run(["ldconfig", "-X", "-r", root], log=plan.log)
    finish(plan.recipe, root)
    process.run([*plan.compiler, "-o", root / "usr/sbin/kpw-init", plan.init], log=plan.log)
    _add_preload(plan, root / "usr/lib/kpw")
    _precompile(plan, root)
    return versions


def apt_sources(suite: str) -> tuple[str, ...]:
    """Return the one-line sources of ``suite`` that this machine's apt uses."""
    argv = ["apt-get", "indextargets", "--format", _INDEX, "Created-By: Packages"]
    wanted = {suite + pocket for pocket in _POCKETS}
    lines = set()
    for line in process.run(argv).stdout.splitlines():
        codename, release, source = line.split("\t", 2)
        if release in wanted or codename in wanted:
            lines.add(source)
    if not lines:
        raise InfraError(
            f"apt knows no source for {suite}, which the guest image is made of",
            where="/etc/apt/sources.list.d",
            next_step=f"add the {suite} suite of a Debian archive and run 'apt-get update'",
        )
    return tuple(sorted(lines))


def apt_options() -> tuple[str, ...]:
    """Return the machine's settings for reaching its archive (proxy, certificates)."""
    dump = process.run(["apt-config", "dump", "Acquire"]).stdout
    reach = re.compile(r"Acquire::https?::(Proxy|Verify|Ca)", re.IGNORECASE)
    return tuple(line for line in dump.splitlines() if reach.match(line))


def deb_versions(names: Iterable[str]) -> dict[str, str]:
    """Read package -> version off the names apt gives its .deb files."""
    versions = {}
    for name in names:
        if match := _DEB.fullmatch(name):
            versions[match["package"]] = match["version"].replace("%3a", ":")
    return versions


def preferences(pins: Mapping[str, str]) -> str:
    """Return apt preferences that choose the pinned versions where the archive has them."""
    return "".join(
        f"Package: {package}\nPin: version {version}\nPin-Priority: 1001\n\n"
        for package, version in sorted(pins.items())
    )


def _extract(plan: Plan, root: Path) -> None:
    pinned = root.parent / "preferences"
    pinned.write_text(preferences(plan.pins))
    merged = " ".join(_MERGED)
    argv = [
        "mmdebstrap",
        "--mode=chrootless",
        "--variant=extract",
        f"--architectures={plan.arch}",
        "--include=" + ",".join(plan.recipe.packages),
        *(f"--aptopt={option}" for option in apt_options()),
        # dpkg-deb would otherwise make plain directories of them.
        f'--setup-hook=for d in {merged}; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done',
        f'--setup-hook=cp "{pinned}" "$1/etc/apt/preferences.d/pins"',
        # The names of the .deb files are the list of versions.
        "--skip=cleanup/apt/cache",
        plan.recipe.suite,
        str(root),
        "-",
    ]
    if _KEYRING.exists():
        argv.insert(1, f"--keyring={_KEYRING}")
    sources = "\n".join(apt_sources(plan.recipe.suite)) + "\n"
    done = process.run(argv, stdin=sources.encode(), log=plan.log, check=False)
    if done.returncode != 0:
        raise InfraError(
            blame(plan.log.read_text(errors="replace")),
            where="mmdebstrap, while the guest image was made",
            next_step=f"see {plan.log} and run it again",
        )


def blame(log: str) -> str:
    """Return the line of an mmdebstrap log that says why it failed."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for sign in ("No space left on device", "Err:", "E:", "error"):
        for line in lines:
            if sign in line:
                return line
    return lines[-1] if lines else "it failed without a word"


def finish(recipe: Recipe, root: Path) -> None:
    """Do to an extracted tree what the recipe says; removes outside ``root`` are refused."""
    for pattern in recipe.remove:
        for path in sorted(root.glob(pattern)):
            _remove(path)
    for name in recipe.directories:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, source in recipe.copies.items():
        shutil.copyfile(root / source, root / name)
    for name, text in recipe.appended.items():
        with (root / name).open("a") as file:
            file.write(text)
    for name, target in recipe.links.items():
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)
    for name in recipe.python:
        _copy_distribution(name, root / "usr/lib/python3/dist-packages")


def _add_preload(plan: Plan, folder: Path) -> None:
    folder.mkdir()
    script = folder / "preload.py"
    shutil.copyfile(plan.preload, script)
    script.chmod(0o755)
    (folder / "preload.list").write_text("\n".join(plan.recipe.preload) + "\n")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def python_version(name: str) -> str:
    """Return the version of a Python distribution of our own environment."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise InfraError(
            f"{name} is not in this Python environment, the guest image needs it",
            next_step="start the workbench by tools/kpw, which installs it from uv.lock",
        ) from error


def _copy_distribution(name: str, into: Path) -> None:
    python_version(name)
    for file in importlib.metadata.files(name) or ():
        if file.suffix == ".py" and ".." not in file.parts:
            target = into / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)


def _precompile(plan: Plan, root: Path) -> None:
    """Let the guest's own Python compile its library: half of a selftest's start is imports.

    Files of an image never change, so the byte code need not be checked
    against its source. A foreign architecture's Python cannot run here; its
    guest then works, and starts more slowly.
    """
    # Not -j: its semaphores want /dev/shm, and the image has no /dev of its own.
    argv = ["chroot", str(root), "/usr/bin/python3", "-S", "-m", "compileall", "-q"]
    argv += ["--invalidation-mode", "unchecked-hash", "/usr/lib/python3.11", "/usr/lib/python3"]
    done = process.run(argv, log=plan.log, check=False, contained=True)
    # 1 is compileall's own word; chroot says 126 of a program this machine cannot run.
    if done.returncode == 1:
        raise InfraError(
            "the guest's Python library did not compile",
            where="compileall in the guest image",
            next_step=f"see {plan.log}",
        )
