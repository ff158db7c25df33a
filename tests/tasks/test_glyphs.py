"""Rendered characters: real shapes, no digits, the same for ever."""

import string
import unicodedata
from pathlib import Path

import pytest
import torch

from quickstudy.core import ConfigError, DataError
from quickstudy.tasks.glyphs import default_fonts, glyph_split, render_glyphs

LETTERS = [*"АБГДЖabcdefghknqrstuvyzΔΘΨΩ"]


def test_shape_ink_and_names() -> None:
    pool = render_glyphs(chars=LETTERS, per_class=6)
    assert pool.x.dtype == torch.uint8
    assert pool.x.shape == (6 * pool.n_classes, 1, 28, 28)
    assert pool.counts.tolist() == [6] * pool.n_classes
    assert "U+0416 CYRILLIC CAPITAL LETTER ZHE" in pool.class_names
    assert pool.x.amax((1, 2, 3)).tolist() == [255] * len(pool.x)
    border = torch.cat([pool.x[..., 0, :], pool.x[..., -1, :]]).float().mean()
    assert float(border) < 0.25 * float(pool.x.float().mean())  # bright on black, inside


def test_examples_differ_but_belong_together() -> None:
    pool = render_glyphs(chars=LETTERS, per_class=10)
    x = torch.nn.functional.normalize(pool.x.flatten(1).float())
    assert len(pool.x.flatten(1).unique(dim=0)) == len(pool.x)
    distance = 1 - x @ x.T
    distance.fill_diagonal_(9)
    right = pool.y[distance.argmin(1)] == pool.y
    assert float(right.float().mean()) > 0.35  # chance is below 0.05


def test_an_example_depends_on_seed_and_character_only() -> None:
    pool = render_glyphs(chars=["Ж", "Б", "d"], per_class=4)
    alone = render_glyphs(chars=["Ж"], per_class=2)
    code = next(i for i, name in enumerate(pool.class_names) if "ZHE" in name)
    torch.testing.assert_close(pool.x[pool.y == code][:2], alone.x, atol=1, rtol=0)
    again = render_glyphs(chars=["Ж", "Б", "d"], per_class=4)
    assert torch.equal(pool.x, again.x)
    other = render_glyphs(chars=["Ж", "Б", "d"], per_class=4, seed=1)
    assert not torch.equal(pool.x, other.x)


def test_default_classes_are_many_and_no_digit() -> None:
    pool = render_glyphs(per_class=1)
    chars = [chr(int(name.split()[0][2:], 16)) for name in pool.class_names]
    assert len(chars) > 1000
    assert not set(chars) & set(string.digits)
    for char in chars:
        assert unicodedata.category(char)[0] in "LSP"
        assert unicodedata.numeric(char, None) is None
        assert unicodedata.decomposition(char) == ""
    assert not set(chars) & set("Ol|I")  # shapes of 0 and 1
    assert len({"A", "Α", "А"} & set(chars)) == 1  # Latin, Greek, Cyrillic


def test_digits_on_request() -> None:
    assert render_glyphs(chars=[*string.digits], digits=True, per_class=1).n_classes == 10
    with pytest.raises(DataError, match="no character"):
        render_glyphs(chars=[*"0123²③７𝟘½"], per_class=1)


def test_splits_are_disjoint_and_fixed() -> None:
    parts = [render_glyphs(chars=LETTERS, per_class=1, split=s) for s in ("train", "val", "test")]
    names = [set(pool.class_names) for pool in parts]
    assert not names[0] & names[1]
    assert not (names[0] | names[1]) & names[2]
    assert set.union(*names) == set(render_glyphs(chars=LETTERS, per_class=1).class_names)
    assert [glyph_split(c) for c in "abekЖ"] == ["train", "train", "test", "val", "train"]


def test_blank_and_missing_characters_are_no_class() -> None:
    pool = render_glyphs(chars=["a", " ", "\u200b", "\u0301", "漢", "b"], per_class=1)
    assert [name.split()[0] for name in pool.class_names] == ["U+0061", "U+0062"]


def test_sizes_and_fonts() -> None:
    pool = render_glyphs(chars=["a", "b"], per_class=2, size=48, fonts=default_fonts()[:1])
    assert pool.x.shape == (4, 1, 48, 48)


def test_errors(tmp_path: Path) -> None:
    (tmp_path / "font.ttf").write_bytes(b"not a font")
    with pytest.raises(DataError, match=r"font\.ttf"):
        render_glyphs(fonts=[tmp_path / "font.ttf"])
    with pytest.raises(DataError, match=r"gone\.ttf"):
        render_glyphs(fonts=[tmp_path / "gone.ttf"])
    for bad in ({"per_class": 0}, {"size": 2}, {"split": "dev"}, {"fonts": []}):
        with pytest.raises(ConfigError):
            render_glyphs(**bad)  # type: ignore[arg-type]
