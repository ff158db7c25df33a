"""Published splits of classes into training, validation and test, as JSON files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from importlib import resources

from quickstudy.core import ConfigError, ProtocolError, nearest_names
from quickstudy.core.arguments import checked

__all__ = ["SPLITS", "Split", "load_split"]

SPLITS = (
    "omniglot-vinyals",
    "omniglot-random",
    "omniglot-background-evaluation",
    "omniglot-by-alphabet",
    "miniimagenet-ravi",
    "cifar-fs",
    "fc100",
)
"""The names that :func:`load_split` knows."""

_DISJOINT_PARTS = ("train", "val", "test")


@checked
@dataclass(frozen=True, slots=True)
class Split:
    """Which classes belong to which part of a data set.

    Args:
        name: name of the split file.
        parts: class names of each part; ``train``, ``val`` and ``test`` are disjoint. Any further
            part is a union of some of them.
        source: who published it.
        names: readable names of classes that are named by an identifier.

    Raises:
        ProtocolError: if a class is in two of ``train``, ``val`` and ``test``, or twice in a
            part.
    """

    name: str
    parts: dict[str, tuple[str, ...]]
    source: str = ""
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for part, members in self.parts.items():
            if len(set(members)) < len(members):
                raise ProtocolError(
                    f"split {self.name}: {part} names a class twice. Correct the file."
                )
            if part not in _DISJOINT_PARTS:
                continue
            for member in members:
                if member in seen:
                    raise ProtocolError(
                        f"split {self.name}: class {member!r} is in {seen[member]} and in {part}. "
                        "A class may be in one part only: correct the file."
                    )
                seen[member] = part

    @property
    def sha256(self) -> str:
        """Hash of the parts, as JSON with sorted keys and members and without white space."""
        ordered = {part: sorted(members) for part, members in self.parts.items()}
        text = json.dumps(ordered, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def classes(self) -> frozenset[str]:
        """All classes of all parts."""
        return frozenset(c for members in self.parts.values() for c in members)


@checked
def load_split(name: str) -> Split:
    """Return a split file by its name, one of :data:`SPLITS`.

    Raises:
        ConfigError: if there is no split file of this name.
        ProtocolError: if its parts are not disjoint.
    """
    if name not in SPLITS:
        raise ConfigError(f"there is no split file {name!r}. {nearest_names(name, SPLITS)}")
    text = resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    content = json.loads(text)
    parts = {part: tuple(members) for part, members in content["parts"].items()}
    return Split(content["name"], parts, content["source"], content.get("names", {}))
