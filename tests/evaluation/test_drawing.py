"""An episode as a picture: each row holds its own support and its own queries."""

import re

import pytest
import torch

from quickstudy.core import EpisodeSpec
from quickstudy.evaluation.drawing import draw_episode
from quickstudy.pages.pictures import image_uri
from quickstudy.tasks import PoolSource
from quickstudy.testing import ConstantLearner, gaussian_pool


def images() -> PoolSource:
    pool = gaussian_pool(6, 20, (1, 8, 8), separation=3.0)
    return PoolSource(pool.with_x((30 * pool.x + 128).clamp(0, 255).to(torch.uint8)))


@pytest.mark.parametrize("n_query", [3, 8, 12])
def test_rows_hold_their_own_images(n_query: int) -> None:
    source = images()
    spec = EpisodeSpec(4, 2, n_query)
    page = draw_episode(ConstantLearner(), source, spec, task_id=5, seed=1, caption="Tasks & rows:")
    episode = source.episodes(spec, [5], seed=1)
    rows = re.findall('<tr><th scope="row">.*?</tr>', page)
    assert len(rows) == 4
    assert "Tasks &amp; rows:" in page
    for label, row in enumerate(rows):
        support, queries = row.split('<div class="queries">')
        for part, side, index, shown in (
            (support, episode.support, episode.info["support_index"], 2),
            (queries, episode.query, episode.info["query_index"], min(8, n_query)),
        ):
            of_class = index[0][side.y[0] == label][:shown].tolist()
            found = re.findall('<img src="([^"]+)"', part)
            assert found == [image_uri(source.pool.x[i]) for i in of_class]
    wrong = page.count('class="wrong"')
    assert wrong == 3 * min(8, n_query)  # it answers the same class everywhere
    assert f"{n_query} of all {4 * n_query} queries right" in page


def test_absent_classes_have_no_row() -> None:
    source, spec = images(), EpisodeSpec((2, 5), 2, 3)
    for task in range(6):
        page = draw_episode(ConstantLearner(), source, spec, task_id=task, seed=0, caption="")
        ways = len(source.episodes(spec, [task], seed=0).query.y[0].unique())
        assert page.count('<th scope="row">') == ways
