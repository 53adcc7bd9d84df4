# SPDX-License-Identifier: GPL-2.0-only
# ruff: noqa: INP001 - a script, not a package
"""Draw a failover packet by packet, from the results of a real run.

    python docs/draw_failover.py RUN/TAG/results >docs/ha-failover.svg

RUN is a folder of ~/.local/state/kpw/runs; the test that kills a gateway
leaves what it saw in the results (tests/guest/ha_cases.py, as_record()).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

TEST = "TestBothActive::test_traffic_resumes_when_a_gateway_is_killed"
COLOURS = {"alice": "#1f6fb4", "moon": "#d4700f"}
LOST = "#9a9a9a"
INK = "#24292f"
#: By how much a gateway that takes a segment moves the numbers it sends with.
JUMP = 0xFFFFFFFF // 16
#: What is drawn before the kill and after the last flow has resumed.
BEFORE, AFTER = 0.8, 0.9

WIDTH, HEIGHT = 960, 640
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 104, 56
GAP_X, GAP_Y = 64, 76


@dataclass
class Panel:
    """One flow: dots as (time, sequence number, who handled it, if anyone did)."""

    title: str
    dots: list[tuple[float, int, str]] = field(default_factory=list)
    jumped: bool = False


def record(results: Path) -> dict[str, Any]:
    """Return what the test left in a results file."""
    for line in results.read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        if said.get("when") == "call" and TEST in said.get("nodeid", ""):
            found = dict(said.get("user_properties", ())).get("failover")
            if found is not None:
                return dict(found)
    raise SystemExit(f"{results}: no {TEST} with a failover in it")


def panel_of(seen: dict[str, Any], name: str) -> Panel:
    """Return a flow, each packet by its number.

    What a gateway has to send is ESP when it was handled. What a peer has sent
    is ESP anyway; it was handled when it was passed on to venus. A gateway
    takes a number for each datagram, sent or not: one that was lost is where
    it would have been.
    """
    flow = seen["flows"][name]
    sender, receiver = name.split("-")
    panel = Panel(f"{sender} to {receiver}: the SA is of segment {flow['segment']}")
    first_sent = flow["sent"][0][1]
    lost = [(at, number - first_sent, "") for at, number, came in flow["sent"] if not came]
    if receiver == "venus":
        panel.dots = [(at, number - first_sent, host) for at, host, number in flow["delivered"]]
    else:
        first = flow["esp"][0][2]
        for at, host, number in flow["esp"]:
            jumps, rest = divmod(number - first, JUMP)
            panel.jumped |= jumps > 0
            panel.dots.append((at, rest, host))
    panel.dots += lost
    return panel


@dataclass
class Frame:
    """Where a panel is, and what of the run it shows."""

    x: float
    y: float
    width: float
    height: float
    begin: float
    end: float

    def across(self, at: float) -> float:
        """Return where a time is."""
        return self.x + (at - self.begin) / (self.end - self.begin) * self.width

    def shown(self, at: float) -> bool:
        """Tell whether a time is in it."""
        return self.begin <= at <= self.end


def text(x: float, y: float, said: str, *, size: int = 12, more: str = "") -> str:
    """Return a line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" {more}>{escape(said)}</text>'


def box(x: float, y: float, width: float, height: float, more: str) -> str:
    """Return a rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {more}/>'


def draw_panel(panel: Panel, frame: Frame, seen: dict[str, Any]) -> list[str]:
    """Return one panel's shapes."""
    dots = [dot for dot in panel.dots if frame.shown(dot[0])]
    low = min(height for _, height, _ in dots)
    high = max(*(height for _, height, _ in dots), low + 1)
    foot = frame.y + frame.height
    dark = frame.across(seen["killed"])

    def up(height: float) -> float:
        return foot - 6 - (height - low) / (high - low) * (frame.height - 12)

    out = [
        text(frame.x, frame.y - 10, panel.title, size=14, more='font-weight="600"'),
        box(frame.x, frame.y, frame.width, frame.height, 'fill="#fbfbfb" stroke="#d0d7de"'),
        box(dark, frame.y, frame.across(seen["taken"]) - dark, frame.height, 'fill="#f6e7e7"'),
    ]
    middle = f'transform="rotate(-90 {frame.x - 10} {frame.y + frame.height / 2})"'
    out.append(
        text(
            frame.x - 10,
            frame.y + frame.height / 2,
            "sequence number, from the first",
            more=f'text-anchor="middle" fill="#57606a" {middle}',
        )
    )
    for half in range(-2, 20):
        at = seen["killed"] + half / 2
        if not frame.shown(at):
            continue
        x = frame.across(at)
        out.append(f'<line x1="{x:.1f}" y1="{foot}" x2="{x:.1f}" y2="{foot + 4}" stroke="{INK}"/>')
        if half % 2 == 0:
            said = f"{half // 2} s"
            out.append(text(x, foot + 17, said, size=11, more='text-anchor="middle"'))
    for at, height, host in dots:
        place = f'cx="{frame.across(at):.1f}" cy="{up(height):.1f}"'
        if host:
            out.append(f'<circle {place} r="2.6" fill="{COLOURS[host]}"/>')
        else:
            out.append(f'<circle {place} r="2.4" fill="none" stroke="{LOST}"/>')
    if panel.jumped:
        said = f"from here on the numbers are {JUMP:#x} higher"
        x, y = frame.x + frame.width - 6, foot - 10
        out.append(text(x, y, said, size=11, more=f'text-anchor="end" fill="{COLOURS["moon"]}"'))
    return out


def draw(seen: dict[str, Any]) -> str:
    """Return the whole picture."""
    begin = seen["killed"] - BEFORE
    end = max(*seen["resumed"].values(), seen["taken"]) + AFTER
    wide = (WIDTH - LEFT - RIGHT - GAP_X) / 2
    tall = (HEIGHT - TOP - BOTTOM - GAP_Y) / 2
    took = seen["taken"] - seen["killed"]
    slowest = max(seen["resumed"].values()) - seen["killed"]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    case = f"Linux {seen['kernel']}, strongSwan's case ha/both-active."
    course = f"At 0 s alice is killed, who has segment 1; after {took:.2f} s moon has it as well; "
    out = [
        f'{head} font-family="Helvetica, Arial, sans-serif" fill="{INK}">',
        box(0, 0, WIDTH, HEIGHT, 'fill="white"'),
        text(LEFT, 34, "A failover, packet by packet", size=20, more='font-weight="600"'),
        text(LEFT, 56, f"{case} {course}all flows after {slowest:.2f} s.", more='fill="#57606a"'),
    ]
    legend = [("alice", "handled by alice"), ("moon", "handled by moon"), ("", "by nobody: lost")]
    for place, (host, said) in enumerate(legend):
        x = LEFT + 6 + place * 150
        fill = f'fill="{COLOURS[host]}"' if host else f'fill="none" stroke="{LOST}"'
        out += [f'<circle cx="{x}" cy="74" r="4" {fill}/>', text(x + 10, 78, said)]
    for place, name in enumerate(seen["flows"]):
        column, row = divmod(place, 2)
        frame = Frame(
            LEFT + column * (wide + GAP_X), TOP + 12 + row * (tall + GAP_Y), wide, tall, begin, end
        )
        out += draw_panel(panel_of(seen, name), frame, seen)
    return "\n".join([*out, "</svg>", ""])


def main() -> None:
    """Read a results file, write a picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path, help="the results file of a run")
    sys.stdout.write(draw(record(parser.parse_args().results)))


if __name__ == "__main__":
    main()
