# SPDX-License-Identifier: GPL-2.0-only
"""How make is told to run sparse, and what an old sparse has to be told."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from workbench import process

_UNQUAL = b"static int f(const int *q)\n{\n\t__typeof_unqual__(*q) v = *q;\n\treturn v;\n}\n"


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
        if not any("__typeof_unqual__" in flag for flag in self.flags):
            return ""
        return f"sparse {self.version} does not know __typeof_unqual__: it was told __typeof__"


@cache
def find() -> Sparse:
    """Ask sparse for its version and what it understands; InfraError when it is missing."""
    version = process.run(("sparse", "--version")).stdout.strip()
    # It stops at a hundred warnings otherwise, and the hundred and first would not be new.
    flags = ["-fmax-warnings=unlimited"]
    # v7.1 uses the word whenever a checker looks, and refuses a sparse that does not know
    # it (seen with 0.6.4). __typeof__ keeps the qualifiers: the types are stricter by that
    # much, before the patch as after it. Goes when Debian's sparse knows the word.
    if "error" in process.run(("sparse", "-"), stdin=_UNQUAL, check=False).stderr:
        flags.append("-D__typeof_unqual__=__typeof__")
    return Sparse(version.partition(" ")[0], tuple(flags))
