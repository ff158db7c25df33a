"""Load a user's own code by a name: ``module:attribute`` or ``file.py:attribute``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from quickstudy.core.errors import ConfigError, nearest_names

__all__ = ["call_own", "import_file", "load_attribute", "names_code"]


def names_code(target: str) -> bool:
    """Return whether a text means code: ``module:attribute``, ``file.py:attribute`` or a file that
    ends in ``.py``."""
    return target.endswith(".py") or (":" in target and not Path(target).exists())


def load_attribute(target: str, *, example: str) -> Any:
    """Return what a text like ``mypackage.models:build`` or ``models.py:build`` names.

    Args:
        target: a module as ``import`` writes it, or the path of a Python file; a colon; a name.
        example: a valid target, shown in errors.

    Raises:
        ConfigError: if the text is not of this form, the code cannot be imported or fails while it
            is imported, or it does not define the name.
    """
    where, _, attribute = target.rpartition(":")
    is_file = where.endswith(".py")
    if not where or not attribute or ("/" in where and not is_file):
        raise ConfigError(
            f"{target!r} is not module:attribute. Write the module as 'import' does, or name a "
            f"file, for example {example}."
        )
    module = import_file(Path(where)) if is_file else _import_module(where)
    if not hasattr(module, attribute):
        known = [name for name in vars(module) if not name.startswith("_")]
        raise ConfigError(f"{where} has no {attribute!r}. {nearest_names(attribute, known)}")
    return getattr(module, attribute)


def import_file(path: Path) -> ModuleType:
    """Return a Python file as a module; a file that was imported before is not run again.

    Raises:
        ConfigError: if there is no such file, or it fails while it is imported.
    """
    file = path.resolve()
    if not file.is_file():
        raise ConfigError(f"there is no file {path}. Check the path.")
    # a script that is running, or a module that was imported by its name, is not run a second time
    for module in list(sys.modules.values()):
        # not getattr: a lazy module would import what it stands for
        where = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(where, str) and where.endswith(file.name) and Path(where).resolve() == file:
            return module
    # the digest of the path keeps two files of one name apart, and is the same in worker processes
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:12]
    name = f"quickstudy_own_{file.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} cannot be imported. Name a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise own_code_failed(str(path), "was imported", error) from error
    return module


def _import_module(name: str) -> ModuleType:
    if "" not in sys.path:
        # as 'python -m' does: the user's module lies in the current folder
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{name} cannot be imported ({error}). Run from the folder that holds it, or "
            "install it."
        ) from error
    except (Exception, SystemExit) as error:
        raise own_code_failed(name, "was imported", error) from error


def call_own(target: str, function: Any) -> Any:
    """Call a user's own function without arguments and return its result.

    Raises:
        ConfigError: if it needs arguments, or fails.
    """
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{target} cannot be called without arguments ({error}). Name a function that takes "
            "none."
        ) from error
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise own_code_failed(target, "was called", error) from error


def own_code_failed(what: str, when: str, error: BaseException) -> ConfigError:
    """Return an error that says that the user's own code failed, and where."""
    # a library's message may have many lines, and the address of its manual as the last
    lines = [line.strip() for line in str(error).splitlines() if "https://" not in line]
    reason = "; ".join(lines).rstrip(".")
    if isinstance(error, SyntaxError):
        reason, where = str(error.msg), f", {error.filename} line {error.lineno}"
    else:
        # the last line of the user's own: not that of a library which it called
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if not _is_library(f.filename)] or frames
        where = f", {own[-1].filename} line {own[-1].lineno}" if own else ""
    return ConfigError(f"{what} failed when it {when}: {type(error).__name__}: {reason}{where}.")


def _is_library(file: str) -> bool:
    """Return whether a frame is of Python, of an installed package or of Quickstudy."""
    ours = str(Path(__file__).resolve().parents[1])
    return file.startswith(("<frozen", ours)) or "site-packages" in file or "importlib" in file
