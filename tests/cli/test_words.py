"""What the command line says: options that exist, widths that fit, and imports that are needed."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from quickstudy.cli import app, main
from quickstudy.cli.output import on_terminal, warnings_in_words
from quickstudy.cli.words import in_options
from quickstudy.comparing.contestants import BASELINES
from quickstudy.core import nearest_names
from quickstudy.core.devices import choose_device
from quickstudy.core.errors import ConfigError

ROOT = Path(__file__).parents[2] / "src" / "quickstudy"
GROUP: Any = typer.main.get_command(app)
# options of other programs, or of ours that Typer adds, that sentences may name
OTHERS = {"--help", "--version", "--debug"}


def leaves(group: Any = GROUP, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


COMMANDS = dict(leaves())


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@functools.cache
def sentences() -> list[tuple[str, int, str]]:
    """Return every text in the source that may reach a user: no docstring, no style sheet."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        joined = {
            id(part) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for part in n.values
        }
        for node in ast.walk(tree):
            text = None
            if isinstance(node, ast.JoinedStr):
                text = "".join(
                    str(p.value) if isinstance(p, ast.Constant) else "X" for p in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = None if id(node) in documented | joined else node.value
            if text and "var(--" not in text and "{" not in text:
                found.append((str(path.relative_to(ROOT)), node.lineno, text))
    return found


def test_every_option_that_is_named_exists() -> None:
    parameters = [parameter for command in COMMANDS.values() for parameter in command.params]
    known = {option for p in parameters for option in (*p.opts, *p.secondary_opts)}
    wrong = [
        f"{path}:{line}: {option}"
        for path, line, text in sentences()
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)
        if option not in known | OTHERS
    ]
    assert wrong == []


def test_every_command_that_is_named_exists_and_has_the_options_named_with_it() -> None:
    wrong = []
    for path, line, text in sentences():
        for words in re.findall(r"'?quickstudy ((?:[a-z]+ ?){1,2}[^'\n]*)", text):
            name, *rest = words.split()
            name = re.sub(r"[^a-z]", "", name)
            if name not in GROUP.commands:
                continue  # a sentence about quickstudy
            if hasattr(GROUP.commands[name], "commands"):
                name = f"{name} {rest[0]}" if rest and rest[0].isalpha() else name
                if name in GROUP.commands:
                    continue  # the group itself
            if name not in COMMANDS:
                wrong.append(f"{path}:{line}: quickstudy {name}")
                continue
            options = {o for p in COMMANDS[name].params for o in (*p.opts, *p.secondary_opts)}
            quoted = words.split(". ")[0]
            wrong += [
                f"{path}:{line}: {name} {option}"
                for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", quoted)
                if option not in options | OTHERS
            ]
    assert wrong == []


def test_the_library_names_arguments_and_leaves_options_to_the_command_line() -> None:
    # a whole command may stand in a sentence: "next: quickstudy fit photos --out zoo.task"
    wrong = [
        f"{path}:{line}: {text}"
        for path, line, text in sentences()
        if not path.startswith("cli/")
        and re.search(r"(?<![\w-])--[a-z]", text)
        and "quickstudy " not in text
        and not re.fullmatch(r"--[a-z-]+( '[^']*'| \S+)?", text)  # a part of a command
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("name data with data=.", ["compare", "x"], "name data with --data."),
        ("lower k_shot= or n_way=5.", ["evaluate", "r"], "lower --k-shot or --n-way 5."),
        ("all with domains=True, once", ["compare"], "all with --domains, once"),
        ("set steps=20", ["train", "r"], "set steps=20"),  # a setting, no option of train
        ("set steps=20", ["demo"], "set --steps 20"),
        ("split_file=a.json is unknown", ["episodes", "write"], "--split-file a.json is unknown"),
        ("learner.data=3 and 'data=x'", ["compare"], "learner.data=3 and 'data=x'"),
        (
            "Lower k_shot or n_query, not inner_lr",
            ["evaluate", "r"],
            "Lower --k-shot or --n-query, not inner_lr",
        ),
        ("k_shot=1", ["no such command"], "k_shot=1"),
    ],
)
def test_arguments_become_options(text: str, words: list[str], said: str) -> None:
    assert in_options(text, GROUP, words) == said


@pytest.mark.parametrize("columns", [30, 40, 80, 200])
def test_help_fits_the_terminal_and_cuts_nothing_off(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in ["", "data", "episodes", *COMMANDS]:
        assert run(*name.split(), "--help") == 0
        text = capsys.readouterr().out
        usual = [line for line in text.splitlines() if len(line.split()) > 1]
        longest = max(usual, key=len)
        # beside long names of options a few words need a little more than the narrowest
        assert len(longest) <= max(min(columns, 80), 48), (name, longest)
        assert "…" not in text, name
        assert not re.search(r"[a-z]\.\.\.$", text, re.MULTILINE) or name == "fit", name


def test_the_help_of_the_whole_says_what_each_command_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert run("--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for command in GROUP.commands.values():
        assert " ".join(command.help.split("\n\n")[0].split()) in text


def imported(*words: str) -> set[str]:
    """Return the modules that a command has imported at its end, in a process of its own."""
    code = (
        "import sys\nfrom quickstudy.__main__ import main\nsys.argv[0] = 'quickstudy'\n"
        "try:\n    main()\nfinally:\n    print('\\n' + ' '.join(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["train", "--help"], ["fit", "-h"]])
def test_words_about_itself_import_nothing_heavy(words: list[str]) -> None:
    heavy = {"torch", "numpy", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib", "PIL", "tqdm"}
    loaded = imported(*words) & heavy
    assert not loaded


@pytest.mark.parametrize("words", [["data", "list"], ["train", "--list"]])
def test_a_list_draws_no_chart_and_fits_no_model(words: list[str]) -> None:
    loaded = imported(*words) & {"sklearn", "matplotlib", "onnx", "pandas", "transformers"}
    assert not loaded


def test_a_table_is_fitted_and_shown_without_what_it_does_not_use(tmp_path: Path) -> None:
    rows = [f"{i % 2 * 9 + i / 10},{i / 7},{'ab'[i % 2]}" for i in range(12)]
    (tmp_path / "i.csv").write_text("\n".join(["width,height,label", *rows]) + "\n")
    # scikit-learn imports pandas where it is installed
    unused = {"matplotlib", "onnx", "transformers", "sentence_transformers"}
    task = str(tmp_path / "t.task")
    loaded = imported("fit", str(tmp_path / "i.csv"), "--out", task) | imported("show", task)
    assert not loaded & unused


def test_the_baselines_in_the_help_are_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", "--help") == 0
    assert ", ".join([*BASELINES, "or none"]) in " ".join(capsys.readouterr().out.split())


def test_no_name_is_offered_that_was_given_and_none_twice() -> None:
    assert nearest_names("cuda", ["cuda", "cuda:1", "mps"]) == "Did you mean 'cuda:1'?"
    found = nearest_names("aux_wieght", ["aux_weight", "learner.aux_weight", "steps"])
    assert found == "Did you mean 'aux_weight'?"
    assert nearest_names("x", ["x"]) == "Known names: ."


def test_a_device_that_is_not_here_is_not_a_slip_of_the_pen() -> None:
    with pytest.raises(ConfigError, match="device 'cuda:99' is not on this machine") as caught:
        choose_device("cuda:99")
    assert "Did you mean" not in str(caught.value)
    with pytest.raises(ConfigError, match="Did you mean 'cuda'"):
        choose_device("cudda")


def test_warnings_of_libraries_stay_silent_and_ours_are_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with warnings_in_words():
            warnings.warn("from elsewhere", UserWarning, stacklevel=1)
            warnings.warn("old", DeprecationWarning, stacklevel=1)
            warnings.warn_explicit(
                "text 3 is cut", UserWarning, str(ROOT / "embedders" / "texts.py"), 1
            )
    assert capsys.readouterr().err == "warning: text 3 is cut\n"


def test_no_bar_where_nobody_looks() -> None:
    assert not on_terminal()  # pytest holds standard error


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--version"], 0),
        ([], 2),
        (["fitt"], 2),
        (["fit"], 2),
        (["fit", "x", "--devise", "cpu"], 2),
        (["data", "get", "no-such-data"], 2),
        (["show", "missing.task"], 1),
        (["evaluate", "missing-run", "--data", "digits"], 1),
        (["evaluate", "r", "--data", "digits", "--n-way", "some"], 2),
        (["compare", "missing-run", "--data", "digits"], 1),
        (["compare", "missing-run", "--data", "digits", "--k-shot", "1-"], 2),
        (["train", "no-such-recipe"], 2),
        (["train", "glyphs-protonet", "--resume", "--out", "missing-run"], 1),
        (["demo", "--steps", "0"], 2),
        (["episodes", "verify", "missing.npz"], 1),
    ],
)
def test_exit_codes_are_those_of_the_page(
    words: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == code
    assert list(tmp_path.iterdir()) == []
