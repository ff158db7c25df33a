"""The conformance suite of sources: episodes are reproducible, valid, and their labels cannot be
guessed."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from quickstudy.checks.guessing import label_evenness, position_gain
from quickstudy.core import Episode, EpisodeSpec, Examples
from quickstudy.core.arguments import checked
from quickstudy.tasks import TaskSource

__all__ = ["SourceConformance", "episode_digests"]

Ints = npt.NDArray[np.int64]
_EPISODES_PER_BATCH = 50
_LARGE_TASK_ID = 123_456_789_012
_STANDARD_ERRORS_ABOVE_CHANCE = 4
_DEVIATIONS_ABOVE_MEAN = 6  # of a chi-squared variable


@checked
def episode_digests(source: TaskSource, spec: EpisodeSpec, ids: Sequence[int], seed: int) -> str:
    """Return one hash per episode, joined by spaces: its examples and labels, without padding."""
    episode = source.episodes(spec, ids, seed=seed)
    return " ".join(_digest(episode, t) for t in range(episode.n_tasks))


def _digest(episode: Episode, t: int) -> str:
    digest = hashlib.sha256()
    for side in (episode.support, episode.query):
        for value in (side.x, side.y):
            digest.update(value[t][side.mask[t]].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _load(file: str, name: str) -> SourceConformance:
    """Return an instance of a conformance class of a file; the new process calls this."""
    found = importlib.util.spec_from_file_location("conformance_under_test", file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["conformance_under_test"] = module
    found.loader.exec_module(module)
    suite = getattr(module, name)()
    assert isinstance(suite, SourceConformance)
    return suite


class SourceConformance:
    """Inherit it in a test module as ``Test...``; define :meth:`make_source` and :meth:`make_spec`.

    Attributes to declare:

    * ``regression``: targets are real numbers; tests about labels are left out.
    * ``episodes``: how many are looked at; raise it to 10,000 before a release.
    * ``seed``: names the list of episodes.
    * ``fresh_process``: also make the episodes in a new Python process. Your class must then be at
      the top level of its file.

    Example::

        from quickstudy.testing import SourceConformance
        class TestDigits(SourceConformance):
            def make_source(self):
                return PoolSource(load_pool("digits"))
            def make_spec(self):
                return EpisodeSpec(5, 1, 5)
        TestDigits().test_ids_and_seeds_differ()  # pytest runs this and all other tests
    """

    regression: bool = False
    episodes: int = 300
    seed: int = 0
    fresh_process: bool = True

    def make_source(self) -> TaskSource:
        """Return a new source object."""
        raise NotImplementedError("define make_source() in your test class")

    def make_spec(self) -> EpisodeSpec:
        """Return the size of an episode."""
        raise NotImplementedError("define make_spec() in your test class")

    def _batches(self) -> list[Episode]:
        source, spec = self.make_source(), self.make_spec()
        # on the CPU: a source may make its episodes on a GPU
        return [
            source.episodes(
                spec, range(i, min(i + _EPISODES_PER_BATCH, self.episodes)), seed=self.seed
            ).to("cpu")
            for i in range(0, self.episodes, _EPISODES_PER_BATCH)
        ]

    # ------------------------------------------------------------------ an episode has a name

    def test_an_episode_is_the_same_alone_in_a_batch_and_in_any_order(self) -> None:
        """Episode 7 does not depend on its neighbours, on earlier calls, or on the object."""
        source, spec, ids = self.make_source(), self.make_spec(), [7, 0, _LARGE_TASK_ID, 3]
        together = episode_digests(source, spec, ids, self.seed).split()
        alone = [episode_digests(source, spec, [i], self.seed) for i in ids]
        backwards = episode_digests(source, spec, ids[::-1], self.seed).split()[::-1]
        fresh = episode_digests(self.make_source(), spec, ids, self.seed).split()
        assert together == alone, "an episode depends on the batch it is made in"
        assert together == backwards, "an episode depends on the order of the ids"
        assert together == fresh, "an episode depends on the source object"

    def test_an_episode_is_the_same_in_a_fresh_process(self) -> None:
        """Episodes do not depend on the process: hash seed, global state, memory addresses."""
        if not self.fresh_process:
            return
        kind = type(self)
        code = (
            "import sys; from quickstudy.testing.sources import _load, episode_digests; s = "
            "_load(*sys.argv[1:3]); print(episode_digests(s.make_source(), s.make_spec(), "
            "range(5), s.seed))"
        )
        here = str(Path(__file__).parents[2])
        path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-c", code, inspect.getfile(kind), kind.__name__],
            env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"the fresh process failed: {done.stderr}"
        expected = episode_digests(self.make_source(), self.make_spec(), range(5), self.seed)
        assert done.stdout.split() == expected.split(), "a fresh process makes other episodes"

    def test_ids_and_seeds_differ(self) -> None:
        """Other ids and other seeds give other episodes."""
        source, spec = self.make_source(), self.make_spec()
        named = [
            digest
            for seed in (self.seed, self.seed + 1)
            for digest in episode_digests(source, spec, range(40), seed).split()
        ]
        assert len(set(named)) == len(named), "two (seed, task_id) pairs give the same episode"

    def test_global_generators_are_untouched(self) -> None:
        """The global generators of torch, numpy and random are neither used nor moved."""
        source, spec = self.make_source(), self.make_spec()
        before = _global_generators()
        first = episode_digests(source, spec, range(3), self.seed)
        for name, state in _global_generators().items():
            assert state == before[name], f"the source moved the global generator of {name}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(99)
            other = episode_digests(source, spec, range(3), self.seed)
        assert first == other, "episodes depend on torch's global generator"

    # ------------------------------------------------------------------ what an episode holds

    def test_shapes_masks_and_labels_are_valid(self) -> None:
        """Shapes agree, inputs are finite floats, labels lie in [0, n_way), of padding too."""
        source, spec = self.make_source(), self.make_spec()
        assert isinstance(source, TaskSource), "a source needs name, split and episodes()"
        assert source.name, "a source needs a name"
        assert source.split, "a source needs a split"
        episode = source.episodes(spec, range(6), seed=self.seed)
        assert episode.n_tasks == 6, f"asked for 6 tasks, got {episode.n_tasks}"
        assert episode.regression == self.regression, "declare regression = True"
        s, q = episode.support, episode.query
        assert s.x.shape[2:] == q.x.shape[2:], "support and query differ in the shape of an example"
        for side in (s, q):
            assert side.x.is_floating_point(), f"inputs are {side.x.dtype}, not floating"
            assert bool(torch.isfinite(side.x).all()), "inputs are not finite"
            assert bool(side.mask.any(1).all()), "a task is empty"
            if not self.regression:
                assert side.y.dtype == torch.int64, f"labels are {side.y.dtype}, not int64"
                # of padding as well: a loss uses labels as indices before it masks them
                valid = int(side.y.min()) >= 0 and int(side.y.max()) < episode.n_way
                assert valid, "a label lies outside [0, n_way)"

    def test_every_class_has_its_shots_and_queries(self) -> None:
        """Exactly ``k_shot`` and ``n_query`` per class; with ranges, inside them on both sides."""
        spec = self.make_spec()
        low_way, high_way = _range(spec.n_way)
        low_shot, high_shot = _range(spec.k_shot)
        for episode in self._batches():
            if self.regression:
                points = episode.support.mask.sum(1).numpy()
                ok = bool(((points >= low_shot) & (points <= high_shot)).all())
                assert ok, f"tasks have {np.unique(points)} support points, not {spec.k_shot}"
                asked = episode.query.mask.sum(1)
                assert bool((asked == spec.n_query).all()), "a task has other than n_query points"
                continue
            shots, queries = _counts(episode.support, episode), _counts(episode.query, episode)
            present = shots > 0
            assert np.array_equal(present, queries > 0), "a class has support or queries only"
            ways = present.sum(1)
            assert low_way <= ways.min(), f"a task has {ways.min()} classes, not {spec.n_way}"
            assert ways.max() <= high_way, f"a task has {ways.max()} classes, not {spec.n_way}"
            seen = shots[present]
            assert low_shot <= seen.min(), f"a class has {seen.min()} shots, not {spec.k_shot}"
            assert seen.max() <= high_shot, f"a class has {seen.max()} shots, not {spec.k_shot}"
            most, least = queries[present].max(), queries[present].min()
            assert most <= spec.n_query, f"a class has {most} queries, not {spec.n_query}"
            if not spec.variable:
                assert least == spec.n_query, f"a class has {least} queries, not {spec.n_query}"

    def test_support_and_query_share_nothing(self) -> None:
        """No row of the pool and no identical example is both support and query of an episode."""
        for episode in self._batches():
            s, q = episode.support, episode.query
            for t in range(episode.n_tasks):
                shared = _contents(s, t) & _contents(q, t)
                assert not shared, f"an example of task {t} is support and query"
                if "support_index" in episode.info:
                    rows = episode.info["support_index"][t][s.mask[t].cpu()]
                    others = episode.info["query_index"][t][q.mask[t].cpu()]
                    assert not np.intersect1d(rows, others).size, (
                        f"a row of task {t} is support and query"
                    )
                    assert len(rows.unique()) == len(rows), f"a row of task {t} is drawn twice"

    # ------------------------------------------------------------------ labels cannot be guessed

    def test_position_does_not_tell_the_label(self) -> None:
        """Guessing the label by the place of an example is no better than chance."""
        if self.regression:
            return
        batches = self._batches()
        for side in ("support", "query"):
            gap, error = position_gain(batches, side)
            # strict: the list is fixed, so a false alarm would come back at every run
            assert gap <= _STANDARD_ERRORS_ABOVE_CHANCE * error + 1e-12, (
                f"the place in the {side} tells the label: {gap:+.3f} above chance. "
                "Shuffle every episode."
            )

    def test_every_class_gets_every_label(self) -> None:
        """Over many episodes a class gets every label equally often."""
        if self.regression:
            return
        batches = [e for e in self._batches() if "classes" in e.info]
        if not batches:
            return
        chi2, freedom = label_evenness(batches)
        # a chi-squared variable has mean k and standard deviation sqrt(2 k), k degrees of freedom
        assert chi2 <= freedom + _DEVIATIONS_ABOVE_MEAN * np.sqrt(2 * freedom), (
            f"classes do not get every label equally often (chi-squared {chi2:.0f} for {freedom} "
            "degrees of freedom). Draw the label of a class anew in every episode."
        )


def _global_generators() -> dict[str, str]:
    """Return the states of the global generators as text."""
    return {
        "torch": str(torch.get_rng_state().tolist()),
        "numpy": str([np.asarray(part).tolist() for part in np.random.get_state()]),  # noqa: NPY002
        "random": str(random.getstate()),
    }


def _range(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _counts(side: Examples, episode: Episode) -> Ints:
    """Return how many examples each label has, ``[T, C]``."""
    out = np.zeros((episode.n_tasks, episode.n_way), dtype=np.int64)
    for t in range(episode.n_tasks):
        out[t] = np.bincount(side.y[t][side.mask[t]].numpy(), minlength=episode.n_way)
    return out


def _contents(side: Examples, t: int) -> set[bytes]:
    rows = side.x[t][side.mask[t]].flatten(1).contiguous().numpy()
    return {row.tobytes() for row in rows}
