# SPDX-License-Identifier: GPL-2.0-only
"""The verdict as JSON: everything that was found, under names that stay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from workbench.model import BuildFailure, BuiltKernel
from workbench.report_series import outcome_data

if TYPE_CHECKING:
    from workbench.image import GuestImage
    from workbench.model import SelftestReport, SelftestResult, Splat
    from workbench.verdict import BrokenOff, Cell, RunReport, Trial

# Raised when a name changes its meaning; a new name does not raise it.
VERSION = 1


def render(report: RunReport) -> str:
    """Return the document, indented, with a line end."""
    return json.dumps(as_data(report), indent=1, ensure_ascii=False) + "\n"


def as_data(report: RunReport) -> dict[str, Any]:
    """Return the document as plain lists and dictionaries; times in seconds."""
    return {
        "kpw": VERSION,
        "started": report.started,
        "seconds": round(report.seconds, 2),
        "verdict": str(report.verdict),
        "exit_code": int(report.exit_code),
        "folder": str(report.folder or ""),
        "broken_off": _broken_off(report.broken_off),
        "trials": [_trial(trial) for trial in report.trials],
    }


def _broken_off(found: BrokenOff | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"why": found.why, "not_judged": list(found.not_judged)}


def _trial(trial: Trial) -> dict[str, Any]:
    series = trial.series
    return {
        "kernel": trial.kernel.name,
        "tag": str(trial.kernel.tag),
        "commit": trial.kernel.commit,
        "origin": trial.kernel.origin,
        "flavour": trial.flavour,
        "arch": trial.arch,
        "verdict": str(trial.verdict),
        "seconds": round(trial.seconds, 2),
        "folder": str(trial.folder or ""),
        "notes": list(trial.notes),
        "red": str(trial.red),
        "expression": trial.expression,
        "ref": series.ref if series is not None else "",
        "tree": series.tree if series is not None else "",
        "patches": [outcome_data(each) for each in series.outcomes] if series is not None else [],
        "build": _build(trial.build),
        "image": _image(trial.image),
        "guests": [_guest(report) for report in trial.reports],
        "cells": [_cell(cell) for cell in trial.cells],
    }


def _build(build: BuiltKernel | BuildFailure | None) -> dict[str, Any] | None:
    match build:
        case BuiltKernel():
            return {
                "key": build.key,
                "release": build.release,
                "seconds": round(build.seconds, 2),
                "cached": build.cached,
            }
        case BuildFailure():
            return {
                "failed": build.reason,
                "excerpt": build.excerpt,
                "log": str(build.log or ""),
            }
        case None:
            return None


def _image(image: GuestImage | None) -> dict[str, Any] | None:
    if image is None:
        return None
    return {"digest": image.digest, "changes": list(image.changes)}


def _guest(report: SelftestReport) -> dict[str, Any]:
    return {
        "boot": report.boot,
        "accelerator": report.accelerator,
        "collected": report.collected,
        "finished": report.finished,
        "exit_status": report.exit_status,
        "boot_seconds": round(report.boot_seconds, 3),
        "seconds": round(report.seconds, 3),
        "console": str(report.console or ""),
        "lost": list(report.lost),
        "splats": [_splat(splat) for splat in report.splats],
    }


def _splat(splat: Splat) -> dict[str, Any]:
    return {
        "kind": str(splat.kind),
        "line": splat.line,
        "excerpt": splat.excerpt,
        "at_seconds": round(splat.at_seconds, 3),
        "test": splat.test,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "extension": cell.extension,
        "state": str(cell.state),
        "upstream": cell.upstream,
        "red_remembered": cell.remembered,
        "reasons": [
            {
                "what": reason.what,
                "where": reason.where,
                "next_step": reason.next_step,
                "excerpt": reason.excerpt,
            }
            for reason in cell.reasons
        ],
        "tests": [_test(test) for test in cell.tests],
        "lost": list(cell.lost),
        "proofs": [
            {
                "nodeid": proof.nodeid,
                "state": str(proof.state),
                "message": proof.message,
                "expected": proof.expected,
            }
            for proof in cell.proofs
        ],
    }


def _test(test: SelftestResult) -> dict[str, Any]:
    return {
        "nodeid": test.nodeid,
        "kind": str(test.kind),
        "outcome": test.outcome,
        "seconds": round(test.seconds, 3),
        "message": test.message,
        "detail": test.detail,
    }
