"""Check that the documents match the code; with --write, bring the generated tables up to date.

Checked: every import in a Python block resolves; every ``quickstudy`` command and option in a
shell block exists; every local link and picture exists, and every file of ours that is named; the
tables of results equal docs/results/*.json; README.md is short; docs/architecture.md draws the
rooms as the import rules have them.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import estimator_tables
import honesty_tables
import incontext_tables
import process_tables
import result_tables
import rooms
import ten_numbers
import typer

from quickstudy.cli import app

ROOT = Path(__file__).resolve().parent.parent
README, README_LINES = ROOT / "README.md", 150
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# what stands between <!-- name:begin --> and <!-- name:end -->
TABLES = result_tables.BLOCKS | estimator_tables.BLOCKS | honesty_tables.BLOCKS | ten_numbers.BLOCKS
TABLES |= process_tables.BLOCKS
TABLES |= incontext_tables.BLOCKS


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks as ``(language, code)``."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def python_faults(code: str) -> list[str]:
    """Return names that a block imports and that do not exist."""
    faults = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("quickstudy"):
            try:
                module = importlib.import_module(str(node.module))
            except ImportError as error:
                faults.append(f"import of {node.module}: {error}")
                continue
            faults += [
                f"{node.module} has no {alias.name}"
                for alias in node.names
                if not hasattr(module, alias.name)
            ]
    return faults


def command_faults(line: str) -> list[str]:
    """Return what a ``quickstudy`` line uses that the command line does not have."""
    words = shlex.split(line, comments=True)
    command: Any = typer.main.get_command(app)
    words = words[1:]
    while hasattr(command, "commands"):
        options = {o for p in command.params for o in p.opts}
        while words and words[0] in options | {"--help"}:
            words = words[1:]
        if not words:
            return []
        if words[0] not in command.commands:
            return [f"{line!r}: no command {words[0]!r}"]
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    used = [word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
    return [f"{line!r}: no option {option}" for option in used if option not in known]


def link_faults(page: Path, text: str) -> list[str]:
    """Return local links of a page that lead nowhere."""
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    local = [t for t in targets if not re.match(r"\w+:", t)]
    return [f"no file {target}" for target in local if not (page.parent / target).exists()]


def path_faults(text: str) -> list[str]:
    """Return files of ours that a page names and that do not exist."""
    named = re.findall(
        r"\b((?:src|tests|benchmarks|examples|docs)/[\w/.-]+\.(?:py|md|json))\b", text
    )
    return [f"no file {path}" for path in dict.fromkeys(named) if not (ROOT / path).exists()]


def with_tables(text: str) -> str:
    """Return a page with its generated tables brought up to date."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if begin in text:
            head, rest = text.split(begin, 1)
            text = f"{head}{begin}\n{table()}\n{end}{rest.split(end, 1)[1]}"
    return text


def code_faults(text: str) -> list[str]:
    """Return what the fenced blocks of a page use that does not exist."""
    faults = []
    for language, code in blocks(text):
        if language == "python":
            faults += python_faults(code)
        if not language:
            lines = [line for line in code.splitlines() if line.startswith("quickstudy ")]
            faults += [fault for line in lines for fault in command_faults(line)]
    return faults


def faults_of(page: Path) -> list[str]:
    """Return everything that is wrong with a page."""
    text = page.read_text(encoding="utf-8")
    faults = [*link_faults(page, text), *path_faults(text), *code_faults(text)]
    if with_tables(text) != text:
        faults.append("a generated table is not that of docs/results; run: make docs")
    length = len(text.splitlines())
    if page == README and length > README_LINES:
        faults.append(f"{length} lines, at most {README_LINES} are wanted: move some to docs/")
    return faults


def main() -> None:
    """Check all pages, or write their tables."""
    if "--write" in sys.argv:
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            current = with_tables(text)
            if current != text:
                page.write_text(current, encoding="utf-8")
        return
    faults = [f"{page.relative_to(ROOT)}: {fault}" for page in PAGES for fault in faults_of(page)]
    faults += [f"{rooms.PAGE.relative_to(ROOT)}: {fault}" for fault in rooms.faults()]
    print("\n".join(faults) or "documents match the code")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
