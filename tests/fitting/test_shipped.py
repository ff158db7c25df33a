"""The priors that every installation carries belong to the encoders that it carries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy.embedders import get_embedder
from quickstudy.embedders.modules import ArrayEmbedder
from quickstudy.fitting import shipped
from quickstudy.fitting.shipped import shipped_prior
from quickstudy.fitting.task import fit_task


@pytest.mark.parametrize("name", ["text", "image", "characters"])
def test_an_encoder_comes_with_what_was_learned_of_it(name: str):
    embedder = get_embedder(name)
    prior = shipped_prior(embedder)
    assert prior.learned
    assert prior.metric.dim == embedder.dim
    assert prior.open_set is not None
    assert prior.open_set.held_out
    # several kinds of data, some with enough classes to be known again
    assert len(prior.heads["logistic"].near) >= 3
    assert len(prior.known) >= 2
    assert prior.about["classes"] >= 50
    assert len(str(prior.about["commit"]).split()[0]) == 40
    files = Path(shipped.__file__).parent / "priors"
    assert sum(f.stat().st_size for f in files.glob(f"{name}.*")) < 2_000_000


@pytest.mark.parametrize("name", ["text", "image", "characters"])
def test_it_says_something_of_tasks_of_one_example_each(name: str):
    """Nothing can be held out there, so all of it comes from other tasks."""
    prior = shipped_prior(get_embedder(name))
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(5, prior.metric.dim))).float()
    task = fit_task(prior, z, torch.arange(5), n_way=5)
    assert task.familiar is None  # random numbers are like no embeddings
    estimate = task.expected_accuracy()
    assert 0 <= estimate.low < estimate.mean < estimate.high <= 1
    assert "like none" in estimate.method
    sizes = task.sets(z, coverage=0.9).sum(1)
    assert int(sizes.min()) >= 1
    assert bool((task.sets(z, coverage=0.5).sum(1) <= sizes).all())
    assert 0 < task.novelty_threshold(0.9) <= task.novelty_threshold(0.99) < float("inf")


def test_a_prior_is_not_used_in_another_space():
    stranger = ArrayEmbedder(384)
    stranger.name = "text"
    assert not shipped_prior(stranger).learned
