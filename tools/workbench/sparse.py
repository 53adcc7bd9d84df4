# SPDX-License-Identifier: GPL-2.0-only
"""How make is told to run sparse, and what an old sparse has to be told."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from workbench import process


@dataclass(frozen=True)
class _Gap:
    """What sparse may not know: a source that asks, what it is told, and how that is said."""

    asks: bytes
    flag: str
    said: str


_GAPS = (
    # v7.1 uses the word whenever a checker looks, and refuses a sparse that does not know
    # it (seen with 0.6.4). __typeof__ keeps the qualifiers: the types are stricter by that
    # much, before the patch as after it.
    _Gap(
        b"static int f(const int *q)\n{\n\t__typeof_unqual__(*q) v = *q;\n\treturn v;\n}\n",
        "-D__typeof_unqual__=__typeof__",
        "does not know __typeof_unqual__: it was told __typeof__",
    ),
    # v7.1 asserts of each MODULE_ALIAS() and its like that it has no NUL within. The quotes
    # are for make's shell. Of a pointer it is the wrong number, as wrong before the patch.
    _Gap(
        b'_Static_assert(__builtin_strlen("a") == 1, "");\n',
        "-D'__builtin_strlen(s)=(sizeof(s)-1)'",
        "does not work out __builtin_strlen of a literal: it was told the size less one",
    ),
)


@dataclass(frozen=True)
class Sparse:
    """The checker: ``version`` as it names itself, ``flags`` that make hands it."""

    version: str
    flags: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The variables of a make that checks every source it is asked for."""
        return ("C=2", "CHECK=sparse", f"CF={' '.join(self.flags)}")

    @property
    def note(self) -> str:
        """What is to be known of how it was run; empty when there is nothing."""
        said = "; it ".join(gap.said for gap in _GAPS if gap.flag in self.flags)
        return said and f"sparse {self.version} {said}"


@cache
def find() -> Sparse:
    """Ask sparse for its version and what it understands; InfraError when it is missing."""
    version = process.run(("sparse", "--version")).stdout.strip()
    # Each word goes when Debian's sparse knows what it stands for.
    told = tuple(
        gap.flag
        for gap in _GAPS
        if "error" in process.run(("sparse", "-"), stdin=gap.asks, check=False).stderr
    )
    # It stops at a hundred warnings otherwise, and the hundred and first would not be new.
    return Sparse(version.partition(" ")[0], ("-fmax-warnings=unlimited", *told))
