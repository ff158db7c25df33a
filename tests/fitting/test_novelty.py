"""Distances from a support: against loops over its definition, and what counts as a stranger."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import generator
from quickstudy.fitting import TaskPrior, fit_task
from quickstudy.fitting.novelty import Neighbourhood
from quickstudy.fitting.space import unit_rows


def place(z: Tensor, columns: bool) -> Tensor:
    return z.double() if columns else F.normalize(z.double(), dim=-1)


def distance(a: Tensor, b: Tensor, columns: bool) -> float:
    return float((a - b).norm()) if columns else float(1 - a @ b)


def mean_of(rows: list[Tensor], columns: bool) -> Tensor:
    mean = torch.stack(rows).mean(0)
    return mean if columns else F.normalize(mean, dim=0)


def by_hand(z: Tensor, y: Tensor, i: int, columns: bool) -> tuple[float, float]:
    """Return the distances of example i from all but its copies, and from other classes."""
    x, labels = place(z, columns), y.tolist()
    others = [j for j in range(len(y)) if not (torch.equal(z[i], z[j]) and labels[i] == labels[j])]
    found = []
    for rows in (others, [j for j in others if labels[j] != labels[i]]):
        nearest = min((distance(x[i], x[j], columns) for j in rows), default=math.inf)
        means = [
            mean_of([x[j] for j in rows if labels[j] == c], columns)
            for c in sorted({labels[j] for j in rows})
        ]
        nearest += min((distance(x[i], mean, columns) for mean in means), default=math.inf)
        found.append(nearest)
    return found[0], found[1]


def uneven() -> tuple[Tensor, Tensor]:
    """Classes of 5, 3, 2 and 1 examples far from the origin; one example is there three times."""
    y = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
    means = 3 + torch.randn(4, 6, generator=generator(0))
    z = means[y] + torch.randn(11, 6, generator=generator(1))
    z[1] = z[2] = z[0]
    return z, y


@pytest.mark.parametrize("columns", [False, True])
def test_own_distances_are_those_of_the_definition(columns: bool) -> None:
    z, y = uneven()
    near = Neighbourhood.of(z, y, columns=columns)
    judged = range(10)  # the last is alone in its class
    expected = [by_hand(z, y, i, columns) for i in judged]
    assert near.several
    assert near.own.tolist() == pytest.approx([own for own, _ in expected], rel=1e-4)
    assert near.apart.tolist() == pytest.approx([apart for _, apart in expected], rel=1e-4)
    assert near.unit == pytest.approx(sum(own for own, _ in expected) / 10, rel=1e-4)
    assert bool((near.own <= near.apart).all())


@pytest.mark.parametrize("columns", [False, True])
def test_a_query_has_the_distance_to_the_nearest_example_and_mean(columns: bool) -> None:
    z, y = uneven()
    near = Neighbourhood.of(z, y, columns=columns)
    queries = 3 + torch.randn(5, 6, generator=generator(2))
    x = place(z, columns)
    means = [mean_of([x[i] for i in range(11) if y[i] == c], columns) for c in range(4)]
    for said, query in zip(near(queries).tolist(), place(queries, columns), strict=True):
        expected = min(distance(query, one, columns) for one in x)
        expected += min(distance(query, mean, columns) for mean in means)
        assert said == pytest.approx(expected, rel=1e-4)


def test_lengths_count_for_columns_alone() -> None:
    z, y = uneven()
    assert float(Neighbourhood.of(z, y)(5 * z[:1])) == pytest.approx(
        float(Neighbourhood.of(z, y)(z[:1])), abs=1e-5
    )
    columns = Neighbourhood.of(z, y, columns=True)
    assert float(columns(5 * z[:1])) > 4 * float(z[0].norm())


def test_a_table_far_from_the_origin_is_as_one_near_it() -> None:
    z, y = uneven()
    here = Neighbourhood.of(z.double().float(), y, columns=True)
    there = Neighbourhood.of(z + 4096, y, columns=True)
    torch.testing.assert_close(here.own, there.own, rtol=1e-2, atol=1e-2)


def test_with_one_example_each_the_distances_between_classes_are_all_there_is() -> None:
    z = torch.randn(4, 6, generator=generator(3))
    near = Neighbourhood.of(z, torch.arange(4))
    assert not near.several
    assert near.own.tolist() == pytest.approx(
        [by_hand(z, torch.arange(4), i, False)[0] for i in range(4)], rel=1e-4
    )
    assert near.unit == pytest.approx(float(near.own.mean()))


def test_copies_alone_are_one_example() -> None:
    """Three times the same in each of two classes: as if there were one of each."""
    z, y = torch.eye(2).repeat(3, 1), torch.tensor([0, 1] * 3)
    near, once = Neighbourhood.of(z, y), Neighbourhood.of(z[:2], y[:2])
    assert not near.several
    assert near.unit == once.unit == pytest.approx(2)  # each is orthogonal to the other
    assert near.own.tolist() == pytest.approx([2] * 6)


def test_a_single_class_and_a_single_example_have_a_unit() -> None:
    z = torch.randn(5, 6, generator=generator(4))
    of_class = Neighbourhood.of(z, torch.zeros(5).long())
    assert of_class.several
    assert bool(of_class.own.isfinite().all())
    assert bool(of_class.apart.isinf().all())
    alone = Neighbourhood.of(z[:1], torch.zeros(1).long())
    assert not alone.several
    assert alone.unit == 1
    assert float(alone(z[:1])) == pytest.approx(0, abs=1e-5)
    assert Neighbourhood.of(torch.zeros(4, 3), torch.arange(4) % 2).unit > 0


def test_of_a_large_support_evenly_spaced_examples_are_judged() -> None:
    y = torch.arange(5000) % 5
    z = 4 * torch.eye(5, 8)[y] + torch.randn(5000, 8, generator=generator(5))
    near = Neighbourhood.of(z, y)
    assert 1000 <= len(near.own) <= 2000
    few = Neighbourhood.of(z[:400], y[:400])
    assert near.unit == pytest.approx(few.unit, rel=0.25)
    # the first judged one is the first example: all others count for it, judged or not
    x = F.normalize(z.double(), dim=1)
    nearest = float((1 - x[1:] @ x[0]).min())
    means = torch.stack([x[1:][y[1:] == c].mean(0) for c in range(5)])
    expected = nearest + float((1 - F.normalize(means, dim=1) @ x[0]).min())
    assert float(near.own[0]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("offset", [0.0, 30.0, 1e3, 1e4])
def test_what_all_embeddings_share_does_not_hide_strangers(offset: float) -> None:
    """In float32 the cosines of vectors with a large common part are all 1."""
    g = generator(6)
    means = 5 * torch.randn(6, 16, generator=g)
    y = torch.arange(4).repeat_interleave(10)
    z = means[y] + torch.randn(40, 16, generator=g)
    query = means[torch.arange(4).repeat_interleave(50)] + torch.randn(200, 16, generator=g)
    strangers = means[4:].repeat_interleave(50, 0) + torch.randn(100, 16, generator=g)
    near = Neighbourhood.of(z + offset, y)
    known, other = near(query + offset), near(strangers + offset)
    assert float((known[:, None] < other).double().mean()) > 0.99
    limit = float((near.own / near.unit).quantile(0.95))
    assert float((known / near.unit <= limit).double().mean()) > 0.85
    assert float((other / near.unit <= limit).double().mean()) < 0.1


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e-3, 1e12, 1e25, 1e36])
def test_answers_do_not_depend_on_the_size_of_embeddings(size: float) -> None:
    z, y = uneven()
    queries = 3 + torch.randn(5, 6, generator=generator(2))
    task = fit_task(TaskPrior.plain(6), z, y, n_way=4)
    scaled = fit_task(TaskPrior.plain(6), z * size, y, n_way=4)
    torch.testing.assert_close(
        scaled.proba(queries * size), task.proba(queries), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        scaled.novelty(queries * size), task.novelty(queries), rtol=1e-4, atol=1e-5
    )


def test_a_row_of_zeros_is_at_distance_one_from_all_but_itself() -> None:
    z = torch.cat([torch.zeros(2, 3), torch.randn(6, 3, generator=generator(8))])
    y = torch.tensor([0, 1, 0, 1, 2, 2, 3, 3])
    near = Neighbourhood.of(z, y)
    own = [2, 3, 4, 5, 6, 7]
    x = F.normalize(z[own].double(), dim=1)
    # classes 0 and 1 hold one row of zeros and one other: their mean lies between the two
    assert float(near(torch.zeros(1, 3))) == pytest.approx(1 - math.sqrt(0.5), rel=1e-4)
    query = torch.randn(1, 3, generator=generator(7))
    cosine = x @ F.normalize(query[0].double(), dim=0)
    means = [cosine[0] * math.sqrt(0.5), cosine[1] * math.sqrt(0.5)]
    for c in (2, 3):
        mean = F.normalize(x[2 * c - 2] + x[2 * c - 1], dim=0)
        means.append(mean @ F.normalize(query[0].double(), dim=0))
    expected = 1 - max(0.0, float(cosine.max())) + 1 - max(map(float, means))
    assert float(near(query)) == pytest.approx(expected, rel=1e-4)
    assert bool(near(torch.randn(4, 3, generator=generator(9))).isfinite().all())
    assert bool(unit_rows(torch.zeros(2, 3)).eq(0).all())
