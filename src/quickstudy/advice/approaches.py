"""What can be tried on a labelled set: encoders with heads, and scikit-learn's own methods."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from torch import Tensor

from quickstudy.advice.episodes import Ints, Trial
from quickstudy.core import Examples, MissingExtraError
from quickstudy.embedders.base import Embedder, Item, Vectors
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.choose import get_embedder
from quickstudy.embedders.images import Transform
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.shipped import shipped_prior
from quickstudy.fitting.task import fit_task

__all__ = ["HEADS_TRIED", "Approach", "Contender", "contenders"]

HEADS_TRIED = ("auto", "prototype", "ridge", "logistic", "neighbours")
"""Heads that are measured with every encoder."""

# the cheapest first
_ENCODERS = {"image": ("characters", "image"), "text": ("text",), "table": ("table",)}
_PIXELS = 32

Scaled = Callable[[Trial], tuple[Vectors, Vectors]]
"""Features of support and queries."""


@dataclass(frozen=True, slots=True)
class Approach:
    """One way to learn the task.

    Args:
        name: for people.
        encoder: of ours, or ``None`` for a method of scikit-learn's.
        head: of ours, or ``None``.
        rank: the simplest and cheapest has the lowest; ours before scikit-learn's, ``auto`` first.
        how: what makes it in Python, for scikit-learn's.
        on: what it takes, where that is not plain.
    """

    name: str
    encoder: str | None
    head: str | None
    rank: int
    how: str = ""
    on: str = ""


class Contender(ABC):
    """Approaches that share their features. Answers the queries of episodes."""

    approaches: tuple[Approach, ...]

    @abstractmethod
    def answer(self, trial: Trial, names: Sequence[str]) -> dict[str, Ints]:
        """Return the labels that approaches give the queries of an episode, each ``[Q]``.

        Args:
            trial: the episode.
            names: of the approaches that are asked; those of others are passed over.
        """

    def frozen(self) -> Contender:
        """Return a contender whose ``auto`` keeps the head that it takes in the first episode: the
        choice, not the answer, is what costs time on large tasks."""
        return self


class _Encoded(Contender):
    """Heads on embeddings.

    Args:
        encoder: its name.
        embed: embeddings of support and queries, and the prior that fits them.
        cost: place among the encoders of its kind.
    """

    def __init__(
        self,
        encoder: str,
        embed: Callable[[Trial], tuple[Tensor, Tensor, TaskPrior]],
        *,
        cost: int,
        keep: bool = False,
    ) -> None:
        self._encoder, self._embed, self._cost = encoder, embed, cost
        self._keep, self._kept = keep, ""
        self.approaches = tuple(
            Approach(f"{encoder}, {head}", encoder, head, cost if head == "auto" else 10 + cost + i)
            for i, head in enumerate(HEADS_TRIED)
        )

    def frozen(self) -> Contender:
        return _Encoded(self._encoder, self._embed, cost=self._cost, keep=True)

    def answer(self, trial: Trial, names: Sequence[str]) -> dict[str, Ints]:
        asked = [a for a in self.approaches if a.name in names]
        if not asked:
            return {}
        z, queries, prior = self._embed(trial)
        y, n_way = torch.from_numpy(trial.label), len(trial.classes)
        found: dict[str, Ints] = {}
        for approach in asked:
            head = self._kept or str(approach.head)
            if head == "auto":
                fitted = fit_task(prior, z, y, n_way=n_way)
                scores = fitted.scores(queries)
                self._kept = fitted.head_name if self._keep else ""
            else:
                scores = _scores(prior, head, z, y, queries, n_way)
            found[approach.name] = scores.argmax(1).numpy()
        return found


@torch.no_grad()
def _scores(
    prior: TaskPrior, name: str, z: Tensor, y: Tensor, queries: Tensor, n_way: int
) -> Tensor:
    """Return what :func:`fit_task` would answer, without what the support says of itself."""
    head = prior.head(name, ways=n_way, shots=len(y) / n_way)
    support = Examples.full(prior.transform(z.float())[None], y[None])
    state = head.adapt(support, n_way=n_way)
    return head.predict(state, prior.transform(queries.float())[None])[0]


class _Fitted(Contender):
    """One of scikit-learn's methods, made anew for every episode.

    Args:
        approach: what it is called.
        make: an unfitted classifier.
        features: of support and queries.
    """

    def __init__(
        self,
        approach: Approach,
        make: Callable[[], Any],
        features: Callable[[Trial], tuple[Any, Any]],
    ) -> None:
        self.approaches = (approach,)
        self._make, self._features = make, features

    def answer(self, trial: Trial, names: Sequence[str]) -> dict[str, Ints]:
        name = self.approaches[0].name
        if name not in names:
            return {}
        support, queries = self._features(trial)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is a floor
            model = self._make().fit(support, trial.label)
        return {name: np.asarray(model.predict(queries), dtype=np.int64)}


def contenders(
    kind: str,
    items: Sequence[Item],
    *,
    seed: int = 0,
    device: str = "auto",
    cache: EmbeddingCache | None = None,
    progress: bool = False,
) -> tuple[list[Contender], dict[str, str]]:
    """Return what can be tried on examples of a kind, and why the rest cannot.

    Images: ``characters`` and ``image`` with heads, and the nearest neighbour by pixels. Texts:
    ``text`` with heads, and logistic regression on TF-IDF. Tables: ``table`` with heads, and
    logistic regression, a random forest and the nearest neighbour on standardised columns.

    Args:
        kind: ``"image"``, ``"text"`` or ``"table"``.
        items: the examples of the sample ``[M]``.
        seed: of what draws.
        device: where to embed.
        cache: of embeddings; the shared one by default.
        progress: show a bar on stderr while examples are embedded.

    Returns:
        The contenders, and by encoder what is missing.

    Raises:
        DataError: if an example cannot be embedded.
    """
    found: list[Contender] = []
    missing: dict[str, str] = {}
    for cost, name in enumerate(_ENCODERS[kind]):
        try:
            embedder = get_embedder(name, device=device, cache=cache)
            scaled = _scaled(embedder, items)
            embed = _table(scaled) if kind == "table" else _fixed(embedder, items, progress)
        except MissingExtraError as error:
            missing[name] = str(error)
            continue
        found.append(_Encoded(name, embed, cost=cost))
    floors = _tabular(scaled, seed) if kind == "table" else [_floor(kind, items)]
    return [*found, *floors], missing


def _fixed(
    embedder: Embedder, items: Sequence[Item], progress: bool
) -> Callable[[Trial], tuple[Tensor, Tensor, TaskPrior]]:
    z = torch.from_numpy(embedder.embed(items, progress=progress))
    prior = shipped_prior(embedder)
    return lambda trial: (z[trial.support], z[trial.query], prior)


def _scaled(embedder: Embedder, items: Sequence[Item]) -> Scaled:
    """Return features scaled by the support of each episode, as a user's would be."""

    last: list[tuple[Trial, tuple[Vectors, Vectors]]] = []

    def features(trial: Trial) -> tuple[Vectors, Vectors]:
        if last and last[0][0] is trial:  # the contenders are asked one after another
            return last[0][1]
        support = [items[i] for i in trial.support]
        fitted = embedder.fit(support)
        made = fitted.embed(support), fitted.embed([items[i] for i in trial.query])
        last[:] = [(trial, made)]
        return made

    return features


def _table(features: Scaled) -> Callable[[Trial], tuple[Tensor, Tensor, TaskPrior]]:
    def embed(trial: Trial) -> tuple[Tensor, Tensor, TaskPrior]:
        z, queries = (torch.from_numpy(part) for part in features(trial))
        return z, queries, TaskPrior.plain(z.shape[1])

    return embed


def _floor(kind: str, items: Sequence[Item]) -> Contender:
    """Return what texts or images are measured against."""
    if kind == "text":
        texts = np.array([item.value for item in items], dtype=object)
        how = (
            r"make_pipeline(TfidfVectorizer(token_pattern=r'\w+|[^\w\s]', ngram_range=(1, 2), "
            "sublinear_tf=True), LogisticRegression(C=10, max_iter=1000))"
        )
        approach = Approach("TF-IDF, logistic regression", None, None, 100, how)
        return _Fitted(approach, _tfidf, lambda t: (texts[t.support], texts[t.query]))
    pixels = _pixels(items)
    how, on = "KNeighborsClassifier(1)", "the pixels at 32 x 32, RGB, one row for each image"
    approach = Approach("pixels, nearest neighbour", None, None, 100, how, on)
    return _Fitted(approach, _nearest, lambda t: (pixels[t.support], pixels[t.query]))


def _tabular(features: Scaled, seed: int) -> list[Contender]:
    """Return scikit-learn's methods for tables."""
    scaler = "make_pipeline(StandardScaler(), {})"
    made: list[tuple[str, str, Callable[[], Any]]] = [
        (
            "logistic regression",
            scaler.format("LogisticRegression(max_iter=1000)"),
            lambda: LogisticRegression(max_iter=1000),
        ),
        ("nearest neighbour", scaler.format("KNeighborsClassifier(1)"), _nearest),
        (
            "random forest",
            "RandomForestClassifier(50)",
            lambda: RandomForestClassifier(50, random_state=seed),
        ),
    ]
    return [
        _Fitted(Approach(name, None, None, 100 + i, how), make, features)
        for i, (name, how, make) in enumerate(made)
    ]


def _tfidf() -> Any:
    # a token is a word or a sign: a text of signs alone must not leave the vocabulary empty
    words = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), sublinear_tf=True)
    return make_pipeline(words, LogisticRegression(C=10, max_iter=1000))


def _nearest() -> Any:
    return KNeighborsClassifier(1)


def _pixels(items: Sequence[Item]) -> npt.NDArray[np.float32]:
    """Return 32 x 32 RGB pixels ``[M, 3072]``."""
    transform = Transform(_PIXELS)
    flat = [transform.pixels(i.value, i.where(row)).reshape(-1) for row, i in enumerate(items)]
    return np.stack(flat).astype(np.float32)
