# SPDX-License-Identifier: GPL-2.0-only
"""The door to kconfiglib: why a symbol did not come out as asked.

The kernel's own ``conf`` writes .config; kconfiglib reads the tree's Kconfig
files to check the outcome and to name the dependency that dropped a symbol.
Kconfig files run shell commands, so this runs as a program of its own inside
the build's sandbox (``python -m workbench.kconfig``, JSON in and out), with
the environment the tree's own make recorded.
"""

from __future__ import annotations

import difflib
import io
import json
import re
import sys
from dataclasses import dataclass
from typing import IO, Any, Final, cast

import kconfiglib

_RANK: Final = {"n": 0, "m": 1, "y": 2}
_CONFIG = re.compile(r"\s*(?:menu)?config\s+(\w+)")
_MODULES = re.compile(r"(\s+)modules\s*")
_TRANSITIONAL = re.compile(r"\s+transitional\s*")
_DEPENDS_IF = re.compile(r"(\s*depends on )\s*([^#]+?)\s+if\s+([^#]+?)\s*(?:#.*)?")
_ALTERNATIVES = 4
"""How many terms of an either-or, or selecting symbols, a reason names."""


@dataclass(frozen=True)
class Wish:
    """One symbol and the value asked for, spelt as .config spells it.

    ``where_known``: it is fine if the tree has no such symbol.
    """

    symbol: str
    wanted: str
    where_known: bool = False


@dataclass(frozen=True)
class Unmet:
    """A wish that did not come true: what is there instead, and why."""

    symbol: str
    got: str
    reason: str


def modernise(text: str, transitional: set[str]) -> str:
    """Rewrite what Kconfig learnt after kconfiglib 14.1, line for line.

    ``modules`` (6.1), ``transitional`` (6.18; the symbols' names are added to
    ``transitional``) and ``depends on A if B`` (7.1). Line numbers stay.
    """
    lines = []
    symbol = ""
    for line in text.splitlines():
        if named := _CONFIG.match(line):
            symbol = named[1]
        if _TRANSITIONAL.fullmatch(line):
            transitional.add(symbol)
            lines.append("")
        elif modules := _MODULES.fullmatch(line):
            lines.append(f"{modules[1]}option modules")
        elif depends := _DEPENDS_IF.fullmatch(line):
            lines.append(f"{depends[1]}({depends[2]}) || !({depends[3]})")
        else:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


class Tree(kconfiglib.Kconfig):  # type: ignore[misc] # kconfiglib ships no types
    """The Kconfig files of any supported kernel.

    Read from ``$srctree`` with the environment of the tree's own make.
    """

    def __init__(self) -> None:
        """Parse ``Kconfig`` and all it sources: 2-3 s for a kernel."""
        self.transitional: set[str] = set()
        self._is_parsing = True
        super().__init__("Kconfig", warn=False)
        self._is_parsing = False

    # Not public in kconfiglib, which is why pyproject.toml pins it: drop this
    # when a release parses the new words (seen missing in 14.1.0).
    def _open(self, filename: str, mode: str) -> IO[str]:
        file = cast("IO[str]", super()._open(filename, mode))
        if not self._is_parsing:
            return file
        with file:
            return io.StringIO(modernise(file.read(), self.transitional))


def config_values(text: str) -> dict[str, str]:
    """Return the symbols a .config sets; what it does not set is ``n``."""
    found = re.findall(r"^CONFIG_(\w+)=(.*)$", text, re.MULTILINE)
    return dict(found)


def unmet(tree: Tree, wishes: list[Wish], config: str) -> list[Unmet]:
    """Compare what was asked with the .config text ``config``, and say why they differ.

    A symbol the tree does not know is unmet even when it was asked to be
    off: the line means something else than its author thinks.
    """
    values = config_values(config)
    findings = []
    for wish in wishes:
        got = values.get(wish.symbol, "n")
        if not _is_known(tree, wish.symbol):
            if wish.where_known:
                continue
            findings.append(Unmet(wish.symbol, got, _unknown(tree, wish.symbol)))
        elif not _equal(wish.wanted, got):
            findings.append(Unmet(wish.symbol, got, _why(tree, wish, got)))
    return findings


def _is_known(tree: Tree, name: str) -> bool:
    symbol = tree.syms.get(name)
    return symbol is not None and bool(symbol.nodes) and name not in tree.transitional


def _equal(wanted: str, got: str) -> bool:
    if wanted.startswith("0x") and got.startswith("0x"):
        return int(wanted, 16) == int(got, 16)
    return wanted == got


def _unknown(tree: Tree, name: str) -> str:
    if name in tree.transitional:
        heirs = [
            symbol.name
            for symbol in tree.unique_defined_syms
            if any(tree.syms[name] in _items(value) for value, _ in symbol.defaults)
        ]
        return f"it was renamed: write CONFIG_{heirs[0]}" if heirs else "it is only transitional"
    known = [symbol.name for symbol in tree.unique_defined_syms]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    hint = f"did you mean CONFIG_{near[0]}? Or " if near else ""
    return f"this kernel has no such symbol; {hint}limit the line with '# since' or '# before'"


def _why(tree: Tree, wish: Wish, got: str) -> str:
    symbol = tree.syms[wish.symbol]
    if symbol.orig_type not in {kconfiglib.BOOL, kconfiglib.TRISTATE}:
        return _why_value(symbol, wish, got)
    if wish.wanted not in _RANK:
        return f"it is {kconfiglib.TYPE_TO_STR[symbol.orig_type]}: write y or n"
    if _RANK[wish.wanted] < _RANK.get(got, 0):
        return _why_on(symbol)
    return _why_off(symbol, wish.wanted)


def _why_value(symbol: Any, wish: Wish, got: str) -> str:
    kind = kconfiglib.TYPE_TO_STR[symbol.orig_type]
    if got == "n" and (term := _first_false(symbol.direct_dep)):
        return f"it depends on {term}"
    for low, high, condition in symbol.ranges:
        if kconfiglib.expr_value(condition):
            return f"it is {kind} with the range {low.str_value} to {high.str_value}"
    if not _is_visible(symbol):
        return "it cannot be set here: nothing but its default gives it a value"
    return f"it is {kind}, and {wish.wanted} is no value for it"


def _why_on(symbol: Any) -> str:
    by = [
        name
        for term in kconfiglib.split_expr(symbol.rev_dep, kconfiglib.OR)
        if kconfiglib.expr_value(term)
        for name in [_leading_symbol(term)]
    ]
    if by:
        return f"it is selected by {_listed(by)}"
    if not _is_visible(symbol):
        return "it cannot be set here: it is on by default"
    if symbol.choice is not None:
        return "its choice has no other member that is on: ask for the one you want"
    return "the kernel's conf put it on"


def _why_off(symbol: Any, wanted: str) -> str:
    if term := _first_false(symbol.direct_dep):
        return f"it depends on {term}"
    if not any(node.prompt for node in symbol.nodes):
        return _only_selected(symbol)
    if not _is_visible(symbol):
        conditions = [node.prompt[1] for node in symbol.nodes if node.prompt]
        term = next((t for c in conditions if (t := _first_false(c))), "something else")
        return f"it can be set only with {term}"
    chosen = symbol.choice.selection if symbol.choice is not None else None
    if chosen is not None and chosen is not symbol:
        return f"its choice went to CONFIG_{chosen.name}, and only one of them can be on"
    if wanted == "m":
        return "modules are off, or it cannot be one"
    return "the kernel's conf put it off"


def _only_selected(symbol: Any) -> str:
    terms = kconfiglib.split_expr(symbol.rev_dep, kconfiglib.OR)
    by = [name for term in terms if (name := _leading_symbol(term))]
    if by:
        return f"it has no prompt; {_listed(by)} selects it: ask for one of these"
    return "it has no prompt, and its default is off here"


def _is_visible(symbol: Any) -> bool:
    return any(node.prompt and kconfiglib.expr_value(node.prompt[1]) for node in symbol.nodes)


def _first_false(expression: Any) -> str:
    """Return the first term of a conjunction that is ``n``, with its values; "" if none is."""
    for term in kconfiglib.split_expr(expression, kconfiglib.AND):
        if kconfiglib.expr_value(term):
            continue
        alternatives = kconfiglib.split_expr(term, kconfiglib.OR)
        if len(alternatives) > 1:
            return f"({_listed([_spelt(item) for item in alternatives], ' || ')}), all of them off"
        return _with_value(term)
    return ""


def _with_value(term: Any) -> str:
    if isinstance(term, kconfiglib.Symbol):
        if term.is_constant:
            return "a condition that is always n here (a test of the compiler, say)"
        state = "which is off" if term.nodes else "which this kernel does not have"
        return f"{_spelt(term)}, {state}"
    return f"{_spelt(term)}, which does not hold"


def _spelt(expression: Any) -> str:
    def name(item: Any) -> str:
        if getattr(item, "is_constant", False) or not getattr(item, "nodes", None):
            return str(kconfiglib.standard_sc_expr_str(item))
        return f"CONFIG_{item.name}" if item.name else "a choice"

    return str(kconfiglib.expr_str(expression, name))


def _listed(names: list[str], glue: str = ", ") -> str:
    shown = list(dict.fromkeys(names))[:_ALTERNATIVES]
    more = "" if len(set(names)) <= _ALTERNATIVES else f"{glue}…"
    return glue.join(shown) + more


def _leading_symbol(term: Any) -> str:
    """Return the selecting symbol of one ``A && condition`` of a reverse dependency."""
    first = kconfiglib.split_expr(term, kconfiglib.AND)[0]
    is_symbol = isinstance(first, kconfiglib.Symbol) and not first.is_constant
    return f"CONFIG_{first.name}" if is_symbol else ""


def _items(expression: Any) -> set[Any]:
    return set(kconfiglib.expr_items(expression))


def main() -> None:
    """Read ``{"config": path, "wishes": [[symbol, wanted, known]…]}``, write the unmet ones."""
    question = json.load(sys.stdin)
    with open(question["config"], encoding="utf-8") as file:  # noqa: PTH123 - a name from make
        config = file.read()
    tree = Tree()
    tree.load_config(question["config"])
    wishes = [Wish(*pair) for pair in question["wishes"]]
    answer = [[item.symbol, item.got, item.reason] for item in unmet(tree, wishes, config)]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
