"""Every public callable of runs, recipes and of the data in tasks, given what it does not take."""

import inspect
from pathlib import Path

import pytest

import quickstudy.recipes
import quickstudy.runs
from quickstudy.core import QuickstudyError
from quickstudy.recipes import files, settings
from quickstudy.tasks import arrays, catalogue, datasets, fit, own, published, splits

MODULES = (quickstudy.runs, quickstudy.recipes, files, settings)
MODULES += (arrays, catalogue, datasets, fit, own, published, splits)
HOSTILE = (None, 3, 1.5, "", "no such thing", b"x", [], {}, (1, 2), object(), int, Path("nowhere"))


def callables():
    for module in MODULES:
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isfunction(thing):
                yield f"{module.__name__}.{name}", thing


FOUND = dict(callables())


@pytest.mark.parametrize("name", FOUND)
def test_wrong_types_raise_our_errors(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    function = FOUND[name]
    parameters = inspect.signature(function).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    for value in HOSTILE:
        given = [value for p in needed if p.kind is not p.KEYWORD_ONLY]
        named = {p.name: value for p in needed if p.kind is p.KEYWORD_ONLY}
        try:
            function(*given, **named)
        except QuickstudyError:
            continue
        except Exception as error:
            pytest.fail(f"{name}({value!r}): {type(error).__name__}: {error}")


def test_every_function_is_looked_at():
    assert len(FOUND) > 30
