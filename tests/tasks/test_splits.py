"""Split files: the published numbers, disjoint parts, a stable hash."""

import pytest

from quickstudy.core import ConfigError, ProtocolError
from quickstudy.tasks.splits import SPLITS, Split, load_split

COUNTS = {
    "omniglot-vinyals": (1028, 172, 423),
    "omniglot-random": (1100, 100, 423),
    "omniglot-background-evaluation": (883, 81, 659),
    "omniglot-by-alphabet": (883, 81, 659),
    "miniimagenet-ravi": (64, 16, 20),
    "cifar-fs": (64, 16, 20),
    "fc100": (60, 20, 20),
}


@pytest.mark.parametrize("name", SPLITS)
def test_published_numbers(name: str) -> None:
    split = load_split(name)
    parts = [split.parts[part] for part in ("train", "val", "test")]
    assert tuple(len(part) for part in parts) == COUNTS[name]
    assert len(split.classes) == sum(COUNTS[name])
    assert split.source


def test_by_alphabet_shares_no_alphabet() -> None:
    parts = load_split("omniglot-by-alphabet").parts
    alphabets = [{c.split("/")[0] for c in parts[part]} for part in ("train", "val", "test")]
    assert [len(a) for a in alphabets] == [25, 5, 20]
    assert not alphabets[0] & alphabets[1]
    assert not (alphabets[0] | alphabets[1]) & alphabets[2]


def test_background_is_training_and_validation() -> None:
    parts = load_split("omniglot-background-evaluation").parts
    assert len(parts["background"]) == 964
    assert set(parts["background"]) == set(parts["train"]) | set(parts["val"])


def test_readable_names() -> None:
    split = load_split("miniimagenet-ravi")
    assert set(split.names) == split.classes
    assert split.names["n01532829"] == "house finch"


def test_hash_depends_on_the_parts_only() -> None:
    split = Split("a", {"train": ("x", "y"), "test": ("z",)})
    assert Split("b", {"test": ("z",), "train": ("y", "x")}, "other").sha256 == split.sha256
    assert Split("a", {"train": ("x",), "test": ("y", "z")}).sha256 != split.sha256


def test_overlap_is_refused() -> None:
    with pytest.raises(ProtocolError, match="'x' is in train and in test"):
        Split("a", {"train": ("x", "y"), "test": ("x",)})
    with pytest.raises(ProtocolError, match="twice"):
        Split("a", {"train": ("x", "x")})


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'omniglot-vinyals'"):
        load_split("omniglot-vinyal")
