# SPDX-License-Identifier: GPL-2.0-only
"""What one export consists of: the patches, and for mails the letter before them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench import (
    addressees,
    coverletter,
    earlier,
    exported,
    patchset,
    process,
    rewording,
    tested,
)
from workbench.coverletter import Cover, Letter, LetterExtension, LetterPatch
from workbench.errors import DeadlineError, UsageError
from workbench.exportfolder import B4_COVER, COVER
from workbench.model import PatchState
from workbench.rebase import rebase

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from workbench.addressees import Addressees
    from workbench.declared import Extension
    from workbench.earlier import Earlier
    from workbench.exported import Exported
    from workbench.gitstore import Store
    from workbench.model import Kernel, PatchOutcome, RebasedSeries
    from workbench.paths import Paths
    from workbench.progress import Progress

_SHORTLOG_WIDTH: Final = 72
_TRAILERS: Final = re.compile(r"(?:[A-Za-z][A-Za-z-]*: .*\n?)+")


@dataclass(frozen=True)
class Mailing:
    """How the mails are wished for.

    ``since`` names what the range-diff is to (a commit, an exported folder, a
    kernel tag), "" the last version exported before. ``title`` is the
    letter's subject, "" the template's own. ``addressed`` asks
    get_maintainer.pl for To: and Cc:.
    """

    version: int = 1
    since: str = ""
    title: str = ""
    addressed: bool = True


@dataclass(frozen=True)
class Exporter:
    """What an export works with; ``extensions`` are those asked for, in their order.

    ``repo`` is the user's repository, which is asked first for the kernels
    patches were made on.
    """

    paths: Paths
    store: Store
    extensions: tuple[Extension, ...]
    progress: Progress
    repo: Path | None = None

    def rebased(self, kernel: Kernel) -> RebasedSeries:
        """Port the series to a kernel."""
        return rebase(
            self.paths, self.store, kernel, self.extensions, self.progress, repo=self.repo
        )

    def quilt(self, ported: RebasedSeries) -> dict[str, bytes]:
        """Return the files of a quilt series."""
        files = patchset.quilt(self.store, ported)
        patchset.check(self.store, ported, files)
        return files

    def mails(self, ported: RebasedSeries, wish: Mailing) -> dict[str, bytes]:
        """Return the files of a set of mails, the letter first, as it is made here."""
        version = wish.version
        before = self._before(ported, wish)
        bare = patchset.mails(self.store, ported, version, None)
        patchset.check(self.store, ported, bare)
        whom = self._addressees(ported, b"".join(bare.values())) if wish.addressed else None
        files = patchset.mails(self.store, ported, version, whom) if whom else bare
        letter = Letter(
            kernel=ported.kernel,
            version=version,
            extensions=self._told_extensions(ported),
            shortlog=self._shortlog(ported),
            diffstat=self._diffstat(ported),
            tested=tested.runs_of(self.paths, ported),
            earlier=before.name if before else "",
            changes=earlier.range_diff(self.store, before, ported) if before else "",
            title=wish.title,
            # A tarball's commit is made when it is imported; --repo takes the user's own.
            local_base=ported.kernel.name in self.store.tags(),
        )
        number = f"v{version}" if version > 1 else ""
        count = str(len(files))
        subject, body = coverletter.render(self.paths.patches / coverletter.TEMPLATE, letter)
        cover = Cover(
            commit=ported.commit,
            prefix=" ".join(filter(None, ("PATCH", number, f"{'0' * len(count)}/{count}"))),
            date=self._newest_date(ported),
            sender=_sender(self.store, self.paths.repo),
            subject=subject,
            body=body,
            to=coverletter.spelt_out(whom.to if whom else ()),
            cc=coverletter.spelt_out(whom.cc if whom else ()),
        )
        return {"-".join(filter(None, (number, COVER))): cover.mail(), **files}

    def worded(
        self, ported: RebasedSeries, version: int, made: Mapping[str, bytes]
    ) -> dict[str, bytes]:
        """Return the files with what the user wrote into the last letter, and b4's form of it."""
        name = next(each for each in made if each.endswith(COVER))
        letter = self._carried(ported, version, made[name])
        added = (self._shortlog(ported), self._diffstat(ported))
        return {**made, name: letter, B4_COVER: coverletter.parsed(letter).for_b4(*added)}

    def _carried(self, ported: RebasedSeries, version: int, letter: bytes) -> bytes:
        last = exported.same(self.paths, ported, version)
        last = last or exported.before(self.paths, ported, version)
        if last is None:
            return letter
        made, place = last.letter
        if not place.is_file() or place.read_bytes() == made.read_bytes():
            return letter
        found = rewording.carried(self.store, made.read_bytes(), place.read_bytes(), letter)
        said = "is carried on" if found.whole else "does not fit in whole: compare the two letters"
        self.progress.note(f"what you wrote into {place} {said}")
        return found.mail

    def _before(self, ported: RebasedSeries, wish: Mailing) -> Earlier | None:
        """Return the version to compare with; None when there was none."""
        if not wish.since:
            last = exported.before(self.paths, ported, wish.version)
            return None if last is None else self._made_again(ported, last)
        if Path(wish.since).is_dir():
            return earlier.in_folder(self.store, Path(wish.since))
        kernel = self.store.kernel(wish.since)
        if kernel is None:
            return earlier.named(self.store, wish.since)
        there = self.rebased(kernel)
        if there.commit == kernel.commit:
            raise UsageError(f"--since {wish.since}: there is no patch for that kernel")
        left_out = "" if there.applies else ", where not all of it applies"
        name = f"the series on {kernel.name}{left_out}"
        return earlier.Earlier(name, kernel.commit, there.commit)

    def _made_again(self, ported: RebasedSeries, last: Exported) -> Earlier:
        other = "" if last.kernel == ported.kernel.name else f" on {last.kernel}"
        return replace(earlier.in_folder(self.store, last.files), name=f"v{last.version}{other}")

    def _addressees(self, ported: RebasedSeries, mails: bytes) -> Addressees | None:
        self.progress.step(f"{ported.kernel.name}: get_maintainer.pl")
        try:
            found = addressees.ask(self.store, ported.kernel.tree, mails)
        except DeadlineError:
            self.progress.note(
                f"get_maintainer.pl came to no end in {addressees.DEADLINE:.0f} s: To: and Cc: are "
                "missing; when the machine has less to do, the same export again adds them"
            )
            return None
        if found is None:
            self.progress.note(f"{ported.kernel.name} has no get_maintainer.pl: no To: and Cc:")
        return found

    def _told_extensions(self, ported: RebasedSeries) -> tuple[LetterExtension, ...]:
        remembered = [each for each in ported.outcomes if each.state is PatchState.REMEMBERED]
        proven = tested.proofs(self.paths) if remembered else {}
        doubtful = {
            each.commit for each in remembered if (each.extension, each.commit) not in proven
        }
        return tuple(_of_extension(self.store, each, ported, doubtful) for each in self.extensions)

    def _diffstat(self, ported: RebasedSeries) -> str:
        return self.store.git("diff", "--stat=72", "--summary", *_span(ported))

    def _shortlog(self, ported: RebasedSeries) -> str:
        words = (f"-w{_SHORTLOG_WIDTH},2,4", "..".join(_span(ported)))
        return self.store.git("shortlog", *words).strip("\n")

    def _newest_date(self, ported: RebasedSeries) -> str:
        """Return the newest author's date: the same patches are the same letter."""
        said = self.store.git("log", "--format=%at %aD", "..".join(_span(ported))).splitlines()
        dates = (line.partition(" ") for line in said)
        return max((int(seconds), date) for seconds, _, date in dates)[1]


def _span(ported: RebasedSeries) -> tuple[str, str]:
    return ported.kernel.commit, ported.commit


def _of_extension(
    store: Store, extension: Extension, ported: RebasedSeries, doubtful: Collection[str | None]
) -> LetterExtension:
    made = [outcome.commit for outcome in ported.outcomes if outcome.commit]
    numbers = {commit: number for number, commit in enumerate(made, 1)}
    own = [outcome for outcome in ported.outcomes if outcome.extension == extension.name]
    return LetterExtension(
        id=extension.id,
        name=extension.name,
        summary=extension.summary,
        requires=extension.requires,
        patches=tuple(_of_patches(own, numbers, doubtful)),
        left_out=tuple(outcome.subject for outcome in own if not outcome.commit),
        why=extension.why or _why(store, own),
    )


def _why(store: Store, outcomes: Sequence[PatchOutcome]) -> str:
    """Return how the first patch of somebody's own begins: it says what is wrong without it."""
    for each in outcomes:
        if each.commit and each.state is not PatchState.RESTORED:
            paragraphs = store.git("show", "-s", "--format=%b", each.commit).split("\n\n")
            first = paragraphs[0].strip("\n")
            return "" if _TRAILERS.fullmatch(first) else first
    return ""


def _of_patches(
    outcomes: Sequence[PatchOutcome], numbers: Mapping[str, int], doubtful: Collection[str | None]
) -> Sequence[LetterPatch]:
    return [
        LetterPatch(
            numbers[each.commit],
            each.subject,
            restored=each.state is PatchState.RESTORED,
            unconfirmed=each.commit in doubtful,
        )
        for each in outcomes
        if each.commit
    ]


def _sender(store: Store, checkout: Path) -> str:
    """Return the user as git knows him in his checkout, "" when it does not."""
    said = []
    # The store's own environment hides the user's settings; they are what is asked for.
    env = {key: v for key, v in store.environment().items() if not key.startswith("GIT_")}
    for key in ("user.name", "user.email"):
        argv = ("git", "-C", checkout, "config", "--get", key)
        said.append(process.run(argv, env=env, check=False).stdout.strip())
    return coverletter.address(*said) if said[1] else ""
