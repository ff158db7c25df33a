"""Hold docs/architecture.md to the import rules, and the rooms to their size."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "quickstudy"
PAGE = ROOT / "docs" / "architecture.md"
LARGEST_SHARE = 0.15


def contracts() -> list[dict[str, Any]]:
    """Return the contracts of import-linter."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return found


def layers() -> dict[str, int]:
    """Return the layer of each room, 1 at the top, as import-linter has it."""
    return {
        room.strip().removeprefix("quickstudy."): number
        for number, layer in enumerate(contracts()[0]["layers"], 1)
        for room in layer.split("|")
    }


def forbidden() -> set[tuple[str, str]]:
    """Return the pairs of rooms that are refused although their layers would allow them."""
    return {
        (above.removeprefix("quickstudy."), below.removeprefix("quickstudy."))
        for contract in contracts()
        if contract["type"] == "forbidden"
        for above in contract["source_modules"]
        for below in contract["forbidden_modules"]
    }


def block(name: str) -> list[list[str]]:
    """Return the cells of the table between the markers of a name, without its head."""
    text = PAGE.read_text(encoding="utf-8")
    inside = text.split(f"<!-- {name}:begin -->", 1)[1].split(f"<!-- {name}:end -->", 1)[0]
    rows = [line for line in inside.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def room_faults() -> list[str]:
    """Return where the table of rooms, the import rules and the folders differ."""
    wanted = layers()
    drawn = {room.strip("`"): int(layer) for layer, room, _ in block("rooms")}
    there = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    faults = [f"room {room} is not drawn as in pyproject.toml" for room in wanted ^ drawn.keys()]
    faults += [
        f"room {room} is drawn in layer {drawn[room]}, and pyproject.toml has {wanted[room]}"
        for room in wanted.keys() & drawn.keys()
        if wanted[room] != drawn[room]
    ]
    return faults + [
        f"room {room} has no place in pyproject.toml" for room in there - wanted.keys()
    ]


def where_faults() -> list[str]:
    """Return which advice of "where do I put ...?" names no place, or contradicts the rules."""
    place, refused, faults = layers(), forbidden(), []
    for change, files, rules in block("where"):
        for path in re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:\.py)?)`", files):
            if not (SOURCE / path).exists():
                faults.append(f"{change}: there is no {path}")
        for above, arrow, below in re.findall(r"`(\w+) (->|-x) (\w+)`", rules):
            allowed = place[above] < place[below] and (above, below) not in refused
            if allowed != (arrow == "->"):
                faults.append(f"{change}: {above} {arrow} {below} is not what the rules say")
    return faults


def size_faults() -> list[str]:
    """Return the rooms that hold more than their share of the lines."""
    lines = {
        room: sum(len(f.read_text(encoding="utf-8").splitlines()) for f in folder.rglob("*.py"))
        for room in layers()
        for folder in [SOURCE / room]
    }
    total = sum(lines.values())
    return [
        f"room {room} has {100 * n / total:.1f} % of the lines, at most "
        f"{100 * LARGEST_SHARE:.0f} % are wanted: which room is really two?"
        for room, n in lines.items()
        if n > LARGEST_SHARE * total
    ]


def faults() -> list[str]:
    """Return everything that is wrong with the rooms and the page about them."""
    return [*room_faults(), *where_faults(), *size_faults()]
