"""Published episodes: the same tasks elsewhere, or a refusal that says what differs."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from quickstudy.core import DataError, EpisodeSpec, ProtocolError
from quickstudy.evaluation import evaluate
from quickstudy.learners import NearestNeighbour, PrototypicalNetwork
from quickstudy.nets import Conv4
from quickstudy.tasks import Pool, PoolSource
from quickstudy.tasks.published import ListedSource, draw_episodes, read_episodes
from quickstudy.tasks.sampling import EpisodeIndex


def pool(seed: int = 0, *, classes: int = 8, each: int = 12, side: int = 28) -> Pool:
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (classes * each, 1, side, side), generator=g, dtype=torch.uint8)
    groups = torch.arange(each).repeat(classes) // 2
    y = torch.arange(classes).repeat_interleave(each)
    return Pool(x, y, tuple(f"class {c}" for c in range(classes)), "shapes", "test", groups)


FIXED, RANGES = EpisodeSpec(5, 1, 3), EpisodeSpec((3, 6), (1, 4), 3)


@pytest.mark.parametrize(("spec", "groups"), [(FIXED, False), (FIXED, True), (RANGES, False)])
def test_a_list_gives_the_episodes_it_was_drawn_from(spec, groups, tmp_path):
    source = PoolSource(pool(), groups)
    draw_episodes(source, spec, episodes=20, seed=3, about={"rotations": False}).write(
        tmp_path / "a.npz"
    )
    listed = read_episodes(tmp_path / "a.npz")
    assert listed.faults(source.pool) == []
    assert (listed.spec, listed.seed, listed.group_aware) == (spec, 3, groups)
    there = ListedSource(source.pool, listed)
    # in any order, and as many at once as one likes
    for ids in ([7], [3, 19, 0]):
        for a, b in zip(
            (there.episodes(spec, ids, seed=3).support, there.episodes(spec, ids, seed=3).query),
            (source.episodes(spec, ids, seed=3).support, source.episodes(spec, ids, seed=3).query),
            strict=True,
        ):
            for name in ("x", "y", "mask"):
                ours, theirs = getattr(a, name), getattr(b, name)
                width = min(ours.shape[1], theirs.shape[1])
                assert torch.equal(ours[:, :width], theirs[:, :width])
                assert not bool(a.mask[:, width:].any())


def test_scores_are_the_same_also_on_cached_embeddings():
    source, spec = PoolSource(pool()), EpisodeSpec(5, 1, 3)
    listed = draw_episodes(source, spec, episodes=30, seed=1)
    for learner in (NearestNeighbour(), PrototypicalNetwork(Conv4(channels=4))):
        plain = evaluate(learner, source, spec, episodes=30, seed=1)
        named = evaluate(learner, ListedSource(source.pool, listed), spec, episodes=30, seed=1)
        assert np.array_equal(plain.scores, named.scores)
        assert plain.protocol.episodes_sha256 == named.protocol.episodes_sha256


def test_a_list_need_not_be_ours():
    """Other rows than our sampler draws are scored as they are listed."""
    source, spec = PoolSource(pool()), EpisodeSpec(2, 1, 1)
    listed = draw_episodes(source, spec, episodes=2, seed=0)
    own = EpisodeIndex(
        support=np.array([[0, 12], [24, 36]]),
        support_y=np.array([[0, 1], [0, 1]]),
        query=np.array([[1, 13], [25, 37]]),
        query_y=np.array([[0, 1], [0, 1]]),
        classes=np.array([[0, 1], [2, 3]]),
    )
    theirs = replace(listed, index=own)
    found = ListedSource(source.pool, theirs).episodes(spec, [1], seed=0)
    assert torch.equal(found.info["support_index"], torch.tensor([[24, 36]]))


def planted(listed, **sides):
    index = listed.index
    arrays = {n: getattr(index, n).copy() for n in EpisodeIndex.__dataclass_fields__}
    for name, (at, value) in sides.items():
        arrays[name][at] = value
    return replace(listed, index=EpisodeIndex(**arrays))


def test_every_planted_fault_is_found():
    source, spec = PoolSource(pool()), EpisodeSpec(3, 2, 2)
    listed = draw_episodes(source, spec, episodes=5, seed=0)
    index = listed.index
    for broken, what in (
        (planted(listed, query=((2, 0), index.support[2, 0])), "episode 2: row .* in the queries"),
        (planted(listed, support=((1, 1), index.support[1, 0])), "episode 1: a row occurs twice"),
        (planted(listed, classes=((4, 1), index.classes[4, 0])), "episode 4: a class"),
        (planted(listed, support=((0, 0), -1)), "episode 0: .* examples per class"),
        (planted(listed, classes=((3, 2), -1)), "episode 3: 2 classes"),
    ):
        faults = broken.faults()
        assert len(faults) >= 1
        assert any(re.search(what, fault) for fault in faults), faults
    swapped = planted(listed, classes=((0,), index.classes[0][::-1]))
    assert "label is not that of its row" in swapped.faults(source.pool)[0]


def test_other_data_is_noticed(tmp_path):
    source = PoolSource(pool())
    listed = draw_episodes(source, EpisodeSpec(3, 1, 2), episodes=5, seed=0)
    x = source.pool.x.clone()
    row = int(listed.rows[3])
    x[row, 0, 0, 0] ^= 1
    (fault,) = listed.faults(source.pool.with_x(x))
    assert fault.startswith(f"1 of {len(listed.rows)} images")
    assert f"row {row} " in fault
    fewer = source.pool.select(range(7))
    assert "'class 7' is in one of them only" in listed.faults(fewer)[0]
    with pytest.raises(ProtocolError, match="other data"):
        ListedSource(fewer, listed)
    there = ListedSource(source.pool, listed)
    with pytest.raises(ProtocolError, match="seed 0"):
        there.index(EpisodeSpec(3, 1, 2), [0], seed=1)
    with pytest.raises(ProtocolError, match="0 to 4"):
        there.index(EpisodeSpec(3, 1, 2), [5], seed=0)


def test_files_that_are_no_lists_are_refused(tmp_path):
    listed = draw_episodes(PoolSource(pool()), EpisodeSpec(3, 1, 2), episodes=5, seed=0)
    path = tmp_path / "a.npz"
    listed.write(path)
    with np.load(path, allow_pickle=False) as file:
        parts = {name: file[name] for name in file.files}
    assert json.loads(str(parts["about"]))["sha256"] == listed.sha256

    def written(**changed) -> str:
        np.savez(tmp_path / "b.npz", **{**parts, **changed})
        return str(tmp_path / "b.npz")

    other = parts["query"].copy()
    other[0, 0] += 1
    with pytest.raises(ProtocolError, match="altered"):
        read_episodes(written(query=other))
    newer = json.loads(str(parts["about"])) | {"format": 99}
    with pytest.raises(DataError, match="Update"):
        read_episodes(written(about=np.array(json.dumps(newer))))
    with pytest.raises(DataError, match="no list"):
        read_episodes(written(query=np.zeros(3)))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="no list"):
        read_episodes(path)
    with pytest.raises(DataError, match="not there"):
        read_episodes(tmp_path / "none.npz")
    with pytest.raises(DataError, match="cannot be written"):
        listed.write(path / "c.npz")
