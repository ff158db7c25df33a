"""``quickstudy diversity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from quickstudy.advice.diversity import measure_diversity
from quickstudy.cli.output import emit, say
from quickstudy.cli.protocol import Seed
from quickstudy.comparing.tasklists import task_lists
from quickstudy.core import ConfigError, EpisodeSpec
from quickstudy.evaluation import embed_pool
from quickstudy.learners import EmbeddingLearner
from quickstudy.learners.heads import ClassMeanHead, LogisticHead
from quickstudy.recipes import encoder_of
from quickstudy.runs.folder import load_run
from quickstudy.tasks import PoolSource

__all__ = ["diversity_command"]

_SIZE = 28


def diversity_command(
    data: Annotated[list[str], typer.Argument(help="Named data sets or folders: the domains.")],
    run: Annotated[
        Path | None, typer.Option(help="Embed with the encoder of this run; else pixels.")
    ] = None,
    n_way: Annotated[int, typer.Option("--n-way", help="Classes per task.")] = 5,
    k_shot: Annotated[int, typer.Option("--k-shot", help="Support per class.")] = 5,
    rank: Annotated[int, typer.Option(min=1, help="Directions that an embedding keeps.")] = 32,
    episodes: Annotated[int, typer.Option(min=2, help="Of each domain.")] = 200,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Is one shared embedding enough for tasks of these domains? What sharing costs, what helps.

    Example: quickstudy diversity omniglot cifar-fs quickdraw

    Linear embeddings are learned on half of the classes of each domain and judged on the other.
    """
    if len(set(data)) < len(data) or len(data) < 2:
        raise ConfigError(f"name at least two domains, each once; got {', '.join(data)}.")
    spec = EpisodeSpec(n_way, k_shot, 10)
    size, channels, learner = _SIZE, 1, None
    if run is not None:
        loaded = load_run(run)
        size, channels = loaded.recipe.encoder.image_size, loaded.recipe.encoder.in_channels
        encoder = encoder_of(loaded.learner)
        if encoder.episodic:
            raise ConfigError(
                f"the encoder of {run} uses the statistics of a task's support: an image alone has "
                "no embedding. Name a run with norm=batch or group."
            )
        learner = EmbeddingLearner(encoder, ClassMeanHead())
    sources: dict[str, PoolSource] = {}
    for name in data:
        (tasks,), remarks = task_lists([], [name], [spec], episodes=episodes, seed=seed)
        for remark in remarks:
            say(f"note: {remark}")
        say(f"{name}: reading")
        source = tasks.source(size=size, channels=channels)
        if learner is not None:
            with torch.no_grad():
                source = embed_pool(learner, source)
        sources[name] = source
    report = measure_diversity(
        sources,
        spec,
        head=ClassMeanHead(),
        adapted=LogisticHead(c=10.0),
        rank=rank,
        episodes=episodes,
        seed=seed,
    )
    document = {"command": "diversity", **report.to_dict()}
    emit(document, as_json=as_json, text=str(report))
