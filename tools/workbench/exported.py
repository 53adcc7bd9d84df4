# SPDX-License-Identifier: GPL-2.0-only
"""The versions of a set of mails that were exported, kept for the next one.

They may have been sent, so they cannot be made again, and lie in $KPW_STATE:
``exports/<kernel>/<extensions>/v<N>/`` has the files as they were made, and
``export.json`` says of which commit, and where they were written to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from workbench import exportfolder
from workbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from workbench.model import RebasedSeries
    from workbench.paths import Paths

_SERIES: Final = "refs/kpw/series/"
_VERSION: Final = re.compile(r"v(\d+)")
_RECORD: Final = "export.json"


class _Record(msgspec.Struct):
    commit: str
    folder: str


@dataclass(frozen=True)
class Exported:
    """A version: ``files`` is the folder that keeps it, ``folder`` where it was written to.

    ``kernel`` is the name of the one it was made for, ``commit`` the last of the series.
    """

    version: int
    kernel: str
    commit: str
    folder: Path
    files: Path

    @property
    def letter(self) -> tuple[Path, Path]:
        """The letter as it was made, and where the user may have worded it since."""
        made = next(self.files.glob(f"*{exportfolder.COVER}"))
        return made, self.folder / made.name


def before(paths: Paths, ported: RebasedSeries, version: int) -> Exported | None:
    """Return the last version below ``version``: of this kernel, else of the newest export."""
    own = [each for each in _of(_folder(paths, ported)) if each.version < version]
    if own:
        return max(own, key=lambda each: each.version)
    name = _folder(paths, ported).name
    others = [each for folder in paths.exports.glob(f"*/{name}") for each in _of(folder)]
    older = [each for each in others if each.version < version]
    return max(older, key=lambda each: (each.files / _RECORD).stat().st_mtime_ns, default=None)


def same(paths: Paths, ported: RebasedSeries, version: int) -> Exported | None:
    """Return this very version, when it was exported for this kernel."""
    found = (each for each in _of(_folder(paths, ported)) if each.version == version)
    return next(found, None)


def refuse_other(paths: Paths, ported: RebasedSeries, version: int) -> None:
    """Raise UsageError when this version was exported with other patches."""
    there = same(paths, ported, version)
    if there is None or there.commit == ported.commit:
        return
    every = [each.version for each in _of(_folder(paths, ported))]
    raise UsageError(
        f"v{version} was exported for {ported.kernel.name} with other patches",
        where=str(there.folder),
        next_step=f"say -v {max(every) + 1}, or --replace if it was never sent",
    )


def keep(
    paths: Paths, ported: RebasedSeries, version: int, made: Mapping[str, bytes], folder: Path
) -> None:
    """Keep what was made, in place of what was this version before."""
    place = _folder(paths, ported) / f"v{version}"
    place.parent.mkdir(parents=True, exist_ok=True)
    record = msgspec.json.encode(_Record(ported.commit, str(folder.resolve())))
    exportfolder.write(place, {**made, _RECORD: record})


def _folder(paths: Paths, ported: RebasedSeries) -> Path:
    return paths.exports / ported.ref.removeprefix(_SERIES)


def _of(folder: Path) -> Iterable[Exported]:
    """Yield the versions in a folder; what cannot be read is none."""
    for place in folder.iterdir() if folder.is_dir() else ():
        match = _VERSION.fullmatch(place.name)
        try:
            record = msgspec.json.decode((place / _RECORD).read_bytes(), type=_Record)
        except (OSError, msgspec.MsgspecError):
            continue
        if match:
            yield Exported(
                int(match[1]), folder.parent.name, record.commit, Path(record.folder), place
            )
