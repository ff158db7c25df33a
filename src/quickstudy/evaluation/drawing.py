"""Episodes and embeddings as pictures for pages: support, queries, and a learner's answers."""

from __future__ import annotations

import html

import numpy as np
import torch

from quickstudy.core import EpisodeSpec
from quickstudy.evaluation import embed_pool
from quickstudy.learners.base import EmbeddingLearner, Learner
from quickstudy.pages.pictures import embedding_map, image_uri
from quickstudy.tasks import PoolSource

__all__ = ["draw_episode", "draw_map"]

_QUERIES_SHOWN = 8  # of each class, in the picture of an episode
_MAP_CLASSES, _MAP_IMAGES = 10, 15  # classes in a map, and images of each at most


@torch.no_grad()
def draw_episode(
    learner: Learner,
    source: PoolSource,
    spec: EpisodeSpec,
    *,
    task_id: int,
    seed: int,
    caption: str,
) -> str:
    """Return one episode as an HTML figure: a row per class with its support and some queries.

    Args:
        learner: the learner that answers the queries.
        source: images.
        spec: way, shot and queries.
        task_id: number of the episode.
        seed: names the list of episodes.
        caption: plain text; the number of right answers is added.
    """
    learner.eval()
    episode = source.episodes(spec, [task_id], seed=seed)
    own = next(learner.parameters(), None)
    moved = episode if own is None else episode.to(own.device)
    state = learner.adapt(moved.support, n_way=episode.n_way)
    answers = learner.predict(state, moved.query.x).argmax(2)[0].tolist()
    names = [source.pool.class_names[c] for c in episode.info["classes"][0].tolist()]
    short = names if all(len(name) <= 2 for name in names) else _letters(len(names))
    support_rows, query_rows = (
        episode.info[f"{side}_index"][0].tolist() for side in ("support", "query")
    )
    real = episode.query.mask[0].tolist()
    truth = [t if m else -1 for t, m in zip(episode.query.y[0].tolist(), real, strict=True)]
    right = sum(a == t for a, t in zip(answers, truth, strict=True))
    body = ""
    for label in range(episode.n_way):
        if label not in truth:
            continue  # an absent class of a task with fewer ways
        name = html.escape(short[label])
        long = "" if short is names else f"<small>{html.escape(_readable(names[label]))}</small>"
        support = "".join(
            f'<img src="{image_uri(source.pool.x[row])}" alt="support example of {name}">'
            for row, y in zip(support_rows, episode.support.y[0].tolist(), strict=True)
            if y == label and row >= 0  # -1 is padding
        )
        shown = [i for i, t in enumerate(truth) if t == label][:_QUERIES_SHOWN]
        queries = "".join(
            _query(image_uri(source.pool.x[query_rows[i]]), short[answers[i]], short[label])
            for i in shown
        )
        body += (
            f'<tr><th scope="row">{name}{long}</th><td class="support">{support}</td>'
            f'<td><div class="queries">{queries}</div></td></tr>'
        )
    count = f"{right} of all {sum(real)} queries right."
    return (
        f'<figure class="episode"><figcaption>{html.escape(caption)} {count}</figcaption>'
        '<table><thead><tr><th scope="col">class</th><th scope="col">support</th>'
        '<th scope="col">queries and '
        f"answers</th></tr></thead><tbody>{body}</tbody></table></figure>"
    )


def _letters(count: int) -> list[str]:
    """Return short names for classes whose own are long: A to Z, then A1 to Z1 and so on."""
    return [chr(65 + i % 26) + (str(i // 26) if i >= 26 else "") for i in range(count)]


def _query(uri: str, answer: str, truth: str) -> str:
    """Return a query's image with the answer, as HTML."""
    answer, truth = html.escape(answer), html.escape(truth)
    if answer == truth:
        style, mark, spoken = "right", f"✓ {answer}", f"answered {answer}, right"
    else:
        style, mark = "wrong", f"✗ {answer} <i>is {truth}</i>"
        spoken = f"answered {answer}, wrong, it is {truth}"
    return (
        f'<span class="{style}"><img src="{uri}" alt="query: {spoken}">'
        f'<span aria-hidden="true">{mark}</span></span>'
    )


def _readable(name: str) -> str:
    """``"U+0416 CYRILLIC CAPITAL LETTER ZHE"`` becomes ``"Cyrillic capital letter zhe"``."""
    if name.startswith("U+"):
        return name.partition(" ")[2].capitalize()
    return name.replace("/character", " ").replace("_", " ")


@torch.no_grad()
def draw_map(learner: EmbeddingLearner, source: PoolSource, *, seed: int, what: str) -> str:
    """Return a map of at most ten classes, with every image placed where its embedding lies.

    Args:
        learner: its encoder makes the embeddings.
        source: images; the map shows the classes of the first episode that the seed draws.
        seed: of this episode and of the map.
        what: the classes in plain words.
    """
    pool = source.pool
    n_way = min(_MAP_CLASSES, pool.n_classes)
    each = min(_MAP_IMAGES, int(pool.counts.min()))
    index = source.index(EpisodeSpec(n_way, max(1, each - 1), 1), [0], seed=seed)
    rows = np.unique(np.concatenate([index.support[0], index.query[0]]))
    embedded = embed_pool(learner, source, rows=rows)
    _, classes = np.unique(pool.y[rows].numpy(), return_inverse=True)
    label = f"Map of {len(rows)} images of {n_way} classes: {what}."
    return embedding_map(
        embedded.pool.x[rows], classes, seed=seed, label=label, images=pool.x[rows]
    )
