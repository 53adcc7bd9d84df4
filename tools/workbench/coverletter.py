# SPDX-License-Identifier: GPL-2.0-only
"""The cover letter: patches/cover-letter.j2 filled in. The only module that knows Jinja2."""

from __future__ import annotations

import email.header
import email.utils
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.addressees import Addressees
    from workbench.model import Kernel
    from workbench.tested import TestedKernel

TEMPLATE: Final = "cover-letter.j2"
_HEADER_WIDTH: Final = 76
_TEXT_WIDTH: Final = 72
# By what a list's item begins with.
_INDENTS: Final = {"- ": "  ", "  ": "    "}


@dataclass(frozen=True)
class LetterPatch:
    """A patch of the set: ``number`` counts from 1, ``restored`` tells it is upstream's text.

    ``unconfirmed`` tells that a conflict in it was resolved from memory, and
    that no selftest has seen the result work.
    """

    number: int
    subject: str
    restored: bool
    unconfirmed: bool = False


@dataclass(frozen=True)
class LetterExtension:
    """An extension that was asked for, and its patches in the set; ``left_out`` need none here.

    ``why`` is what it is for, in the lines its author broke it into.
    """

    id: str
    name: str
    summary: str
    requires: tuple[str, ...]
    patches: tuple[LetterPatch, ...]
    left_out: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Letter:
    """All that the template is given; texts have no line end of their own.

    ``shortlog`` and ``diffstat`` are git's, ``changes`` a range-diff to the
    version called ``earlier``; both empty when there is none.
    """

    kernel: Kernel
    version: int
    extensions: tuple[LetterExtension, ...]
    shortlog: str
    diffstat: str
    tested: tuple[TestedKernel, ...] = ()
    earlier: str = ""
    changes: str = ""
    title: str = ""


@dataclass(frozen=True)
class Envelope:
    """The letter's mail header: ``commit`` is the series' last, ``prefix`` as in ``PATCH v2 0/7``.

    ``sender`` and ``date`` are as a mail's header has them; empty leaves them out.
    """

    commit: str
    prefix: str
    date: str
    sender: str = ""
    addressees: Addressees | None = field(default=None)


def mail(template: Path, letter: Letter, envelope: Envelope) -> bytes:
    """Return the letter as a file beside format-patch's; UsageError when the template is bad.

    The template's first line is the subject.
    """
    subject, _, body = _rendered(template, letter).partition("\n")
    lines = [f"From {envelope.commit} Mon Sep 17 00:00:00 2001"]
    if envelope.sender:
        lines.append(f"From: {envelope.sender}")
    lines.append(f"Date: {envelope.date}")
    lines.append(f"Subject: {_folded(f'[{envelope.prefix}] {subject.strip()}')}")
    if envelope.addressees is not None:
        lines += _listed("To", envelope.addressees.to)
        lines += _listed("Cc", envelope.addressees.cc)
    if not body.isascii():
        lines.append("MIME-Version: 1.0")
        lines.append("Content-Type: text/plain; charset=UTF-8")
        lines.append("Content-Transfer-Encoding: 8bit")
    return ("\n".join(lines) + "\n\n" + body.strip("\n") + "\n").encode()


def _rendered(template: Path, letter: Letter) -> str:
    import jinja2

    values: dict[str, Any] = {name: getattr(letter, name) for name in letter.__dataclass_fields__}
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # a mail's text, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["wrapped"] = _wrapped
    try:
        text = environment.from_string(template.read_text(encoding="utf-8")).render(values)
    except jinja2.TemplateSyntaxError as error:
        where = f"{template}:{error.lineno}"
        raise UsageError(error.message or "not a template", where=where) from error
    except jinja2.TemplateError as error:
        raise UsageError(str(error), where=str(template), next_step="mend it there") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(template)) from error
    if not text.strip():
        raise UsageError("says nothing", where=str(template))
    return text.lstrip("\n")


def _wrapped(text: str) -> str:
    """Break a paragraph or a list's item into lines; long words and dashes stay whole."""
    return textwrap.fill(
        text,
        _TEXT_WIDTH,
        subsequent_indent=_INDENTS.get(text[:2], ""),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _folded(subject: str) -> str:
    if subject.isascii():
        return subject
    return email.header.Header(subject, "utf-8", _HEADER_WIDTH, "Subject").encode()


def _listed(name: str, addresses: tuple[str, ...]) -> list[str]:
    if not addresses:
        return []
    return [f"{name}: " + ",\n\t".join(addresses)]


def address(name: str, mailbox: str) -> str:
    """Return an address as a header spells it."""
    return email.utils.formataddr((name, mailbox))
