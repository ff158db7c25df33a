"""The approaches that advice compares: encoders with heads, and methods of scikit-learn."""

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

from quickstudy.core import Episode, Examples, MissingExtraError
from quickstudy.core.rows import EpisodeRows, Ints
from quickstudy.embedders.base import Embedder, Item, Vectors
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.choose import get_embedder
from quickstudy.embedders.images import Transform
from quickstudy.fitting.columns import takes_columns
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.shipped import shipped_prior
from quickstudy.fitting.task import fit_task
from quickstudy.learners.base import query_logits

__all__ = ["HEADS_TRIED", "Candidate", "CandidateFamily", "candidate_families"]

HEADS_TRIED = ("auto", "prototype", "ridge", "logistic", "neighbours")
"""Heads that are measured with every encoder."""

# encoders for each kind of data, the cheapest first
_ENCODERS = {"image": ("characters", "image"), "text": ("text",), "table": ("table",)}
_PIXELS = 32  # side of the images that the nearest neighbour by pixels sees
# ranks: every encoder with "auto", then the encoders with fixed heads, then scikit-learn
_FIXED_HEAD_RANK, _SKLEARN_RANK = 10, 100

Features = Callable[[EpisodeRows], tuple[Vectors, Vectors]]
"""Returns the features of an episode's support ``[S, D]`` and queries ``[Q, D]``."""

Embed = Callable[[EpisodeRows], tuple[Tensor, Tensor, TaskPrior]]
"""Returns the embeddings of an episode's support and queries, and the prior that fits them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An approach that may be recommended: an encoder with a head, or a method of scikit-learn.

    Args:
        name: how reports call it.
        encoder: an encoder of ours, or ``None`` for a method of scikit-learn.
        head: a head of ours, or ``None``.
        rank: the simplest and cheapest has the lowest. Ours come before scikit-learn's, and the
            head ``auto`` before fixed ones.
        code: what makes it in Python, for a method of scikit-learn.
        inputs: what such a method takes, where that is not plain.
    """

    name: str
    encoder: str | None
    head: str | None
    rank: int
    code: str = ""
    inputs: str = ""


class CandidateFamily(ABC):
    """Candidates that share their features, so that these are computed once for each episode."""

    candidates: tuple[Candidate, ...]

    @abstractmethod
    def answer(self, episode: EpisodeRows, names: Sequence[str]) -> dict[str, Ints]:
        """Learn the support of an episode and return the labels given to its queries, each ``[Q]``.

        Args:
            episode: its rows are places in the sample.
            names: which candidates are to answer; names of other families are ignored.
        """

    def frozen(self) -> CandidateFamily:
        """Return a family whose head ``auto`` is chosen in the first episode and then kept.

        On large tasks choosing a head takes much longer than answering with it.
        """
        return self


class _EncoderFamily(CandidateFamily):
    """The heads on one encoder.

    Args:
        encoder: its name.
        embed: gives embeddings and prior.
        cost: place among the encoders of its kind, the cheapest is 0.
        keep_auto_head: see :meth:`frozen`.
    """

    def __init__(
        self, encoder: str, embed: Embed, *, cost: int, keep_auto_head: bool = False
    ) -> None:
        self._encoder, self._embed, self._cost = encoder, embed, cost
        self._keep_auto_head = keep_auto_head
        self._auto_head: str | None = None
        self.candidates = tuple(
            Candidate(
                f"{encoder}, {head}",
                encoder,
                head,
                cost if head == "auto" else _FIXED_HEAD_RANK + cost + i,
            )
            for i, head in enumerate(HEADS_TRIED)
        )

    def frozen(self) -> CandidateFamily:
        return _EncoderFamily(self._encoder, self._embed, cost=self._cost, keep_auto_head=True)

    def answer(self, episode: EpisodeRows, names: Sequence[str]) -> dict[str, Ints]:
        asked = [candidate for candidate in self.candidates if candidate.name in names]
        if not asked:
            return {}
        z, queries, prior = self._embed(episode)
        y, n_way = torch.from_numpy(episode.support_y), len(episode.classes)
        found: dict[str, Ints] = {}
        for candidate in asked:
            head = str(candidate.head)
            if head == "auto" and self._auto_head is not None:
                head = self._auto_head
            if head == "auto":
                fitted = fit_task(prior, z, y, n_way=n_way)
                logits = fitted.scores(queries)
                self._auto_head = fitted.head_name if self._keep_auto_head else None
            else:
                logits = _head_logits(prior, head, episode, z, queries)
            found[candidate.name] = logits.argmax(1).numpy()
        return found


@torch.no_grad()
def _head_logits(
    prior: TaskPrior, name: str, episode: EpisodeRows, z: Tensor, queries: Tensor
) -> Tensor:
    """Return the logits of one head ``[Q, C]``, the same that :func:`fit_task` would give.

    Faster, because nothing is held out: calibration does not change which class is answered. Only
    heads for columns choose their settings by what is held out.
    """
    if takes_columns(prior, name):
        y, n_way = torch.from_numpy(episode.support_y), len(episode.classes)
        return fit_task(prior, z, y, n_way=n_way, head=name).scores(queries)

    def examples(x: Tensor, y: Ints) -> Examples:
        return Examples.full(prior.transform(x.float())[None], torch.from_numpy(y)[None])

    support, query = examples(z, episode.support_y), examples(queries, episode.query_y)
    n_way = len(episode.classes)
    head = prior.head(name, ways=n_way, shots=len(z) / n_way)
    return query_logits(head, Episode(support, query, n_way))[0]


class _SklearnFamily(CandidateFamily):
    """One method of scikit-learn, fitted anew in every episode.

    Args:
        candidate: what it is called.
        make: returns an unfitted classifier.
        features: of support and queries.
    """

    def __init__(
        self,
        candidate: Candidate,
        make: Callable[[], Any],
        features: Callable[[EpisodeRows], tuple[Any, Any]],
    ) -> None:
        self.candidates = (candidate,)
        self._make, self._features = make, features

    def answer(self, episode: EpisodeRows, names: Sequence[str]) -> dict[str, Ints]:
        (candidate,) = self.candidates
        if candidate.name not in names:
            return {}
        support, queries = self._features(episode)
        with warnings.catch_warnings():
            # these methods are baselines: one that has nearly converged is good enough
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = self._make().fit(support, episode.support_y)
        return {candidate.name: np.asarray(model.predict(queries), dtype=np.int64)}


def candidate_families(
    kind: str,
    items: Sequence[Item],
    *,
    seed: int = 0,
    device: str = "auto",
    cache: EmbeddingCache | None = None,
    progress: bool = False,
) -> tuple[list[CandidateFamily], dict[str, str]]:
    """Return the candidates for examples of a kind, and which encoders are not installed.

    Images: ``characters`` and ``image`` with heads, and the nearest neighbour by pixels. Texts:
    ``text`` with heads, and logistic regression on TF-IDF. Tables: ``table`` with heads, and
    logistic regression, a random forest and the nearest neighbour on standardised columns.

    Args:
        kind: ``"image"``, ``"text"`` or ``"table"``.
        items: the examples of the sample ``[M]``.
        seed: of the random forest.
        device: where to embed.
        cache: of embeddings; the shared one by default.
        progress: show a bar on stderr while examples are embedded.

    Returns:
        The families, and for each encoder that is missing how to install it.

    Raises:
        DataError: if an example cannot be embedded.
    """
    found: list[CandidateFamily] = []
    missing: dict[str, str] = {}
    for cost, name in enumerate(_ENCODERS[kind]):
        try:
            embedder = get_embedder(name, device=device, cache=cache)
            scaled = _scaled_features(embedder, items)
            embed = (
                _embed_scaled(scaled)
                if kind == "table"
                else _embed_once(embedder, items, progress=progress)
            )
        except MissingExtraError as error:
            missing[name] = str(error)
            continue
        found.append(_EncoderFamily(name, embed, cost=cost))
    baselines = _table_baselines(scaled, seed) if kind == "table" else [_baseline(kind, items)]
    return [*found, *baselines], missing


def _embed_once(embedder: Embedder, items: Sequence[Item], *, progress: bool) -> Embed:
    """Embed all examples now: their embeddings are the same in every episode."""
    z = torch.from_numpy(embedder.embed(items, progress=progress))
    prior = shipped_prior(embedder)
    return lambda episode: (z[episode.support], z[episode.query], prior)


def _scaled_features(embedder: Embedder, items: Sequence[Item]) -> Features:
    """Return features scaled by the support of each episode, as a user's support would be."""

    # the families answer an episode one after another: all but the first find it here
    last: list[tuple[EpisodeRows, tuple[Vectors, Vectors]]] = []

    def features(episode: EpisodeRows) -> tuple[Vectors, Vectors]:
        for known, made in last:
            if known is episode:
                return made
        support = [items[i] for i in episode.support]
        fitted = embedder.fit(support)
        made = fitted.embed(support), fitted.embed([items[i] for i in episode.query])
        last[:] = [(episode, made)]
        return made

    return features


def _embed_scaled(features: Features) -> Embed:
    def embed(episode: EpisodeRows) -> tuple[Tensor, Tensor, TaskPrior]:
        z, queries = (torch.from_numpy(part) for part in features(episode))
        return z, queries, TaskPrior.for_columns(z.shape[1])

    return embed


def _baseline(kind: str, items: Sequence[Item]) -> CandidateFamily:
    """Return the method of scikit-learn that encoders of texts or images are compared with."""
    if kind == "text":
        texts = np.array([item.value for item in items], dtype=object)
        code = (
            r"make_pipeline(TfidfVectorizer(token_pattern=r'\w+|[^\w\s]', ngram_range=(1, 2), "
            "sublinear_tf=True), LogisticRegression(C=10, max_iter=1000))"
        )
        candidate = Candidate("TF-IDF, logistic regression", None, None, _SKLEARN_RANK, code)
        return _SklearnFamily(candidate, _tfidf, lambda e: (texts[e.support], texts[e.query]))
    pixels = _pixels(items)
    candidate = Candidate(
        "pixels, nearest neighbour",
        None,
        None,
        _SKLEARN_RANK,
        code="KNeighborsClassifier(1)",
        inputs="the pixels at 32 x 32, RGB, one row for each image",
    )
    return _SklearnFamily(candidate, _nearest, lambda e: (pixels[e.support], pixels[e.query]))


def _table_baselines(features: Features, seed: int) -> list[CandidateFamily]:
    """Return the methods of scikit-learn for tables."""
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
            lambda: RandomForestClassifier(50, random_state=seed % 2**32),
        ),
    ]
    return [
        _SklearnFamily(Candidate(name, None, None, _SKLEARN_RANK + i, code), make, features)
        for i, (name, code, make) in enumerate(made)
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
