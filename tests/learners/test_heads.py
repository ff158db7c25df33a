"""Heads on embeddings against their formulas, scikit-learn and heads that saw less."""

import math

import pytest
import torch
import torch.nn.functional as F

from quickstudy.core import ConfigError, Examples, generator
from quickstudy.learners.heads import (
    CentredHead,
    ClassMeanHead,
    FineTunedHead,
    GradientHead,
    LogisticHead,
    NeighbourHead,
    PrototypeHead,
    RidgeHead,
    held_out_logits,
    logistic,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def random_support(seed, *, tasks=3, size=9, ways=4, features=5):
    """Uneven shots, padding, sometimes a class with one example or none."""
    g = generator(seed)
    y = torch.randint(0, ways, (tasks, size), generator=g)
    mask = torch.rand(tasks, size, generator=g) < 0.85
    mask[:, :2] = True
    y[:, 0], y[:, 1] = 0, 1
    x = torch.randn(tasks, size, features, generator=g, dtype=torch.float64) + y[..., None]
    return Examples(x, y, mask)


CLOSED = {
    "prototype": lambda: PrototypeHead(temperature=2.0),
    "prototype shrunk": lambda: PrototypeHead(shrinkage=0.8),
    "cosine": lambda: PrototypeHead(distance="cosine"),
    "cosine shrunk": lambda: PrototypeHead(distance="cosine", shrinkage=2.0),
    "class means": lambda: ClassMeanHead(temperature=0.1),
    "neighbours": lambda: NeighbourHead(temperature=0.7),
    "nearest two": lambda: NeighbourHead(neighbours=2),
    "cosine neighbours": lambda: NeighbourHead(distance="cosine", temperature=0.1),
}


HEADS = {
    **CLOSED,
    "ridge": RidgeHead,
    "logistic": LogisticHead,
    "fine-tuned": lambda: FineTunedHead(steps=20),
    "fine-tuned cosine": lambda: FineTunedHead(cosine=True, steps=20),
    "gradient": lambda: GradientHead(5, steps=2, lr=0.01),
    "centred": lambda: CentredHead(PrototypeHead(distance="cosine"), prior=2.0),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("folds", [None, 2, 3])
def test_held_out_logits_are_those_of_heads_that_never_saw_the_example(name, folds):
    support, head = random_support(1), HEADS[name]().double()
    found = held_out_logits(head, support, n_way=4, folds=folds)
    for t in range(len(support.y)):
        rank = {}
        part = []
        for i in range(9):
            c = int(support.y[t, i])
            part.append(rank.get(c, 0) % folds if folds else i)
            rank[c] = rank.get(c, 0) + int(support.mask[t, i])
        for i in torch.nonzero(support.mask[t])[:, 0].tolist():
            kept = support.mask[t].clone()
            kept[torch.tensor(part) == part[i]] = False
            without = Examples(support.x[t : t + 1], support.y[t : t + 1], kept[None])
            state = head.adapt(without, n_way=4)
            alone = head.predict(state, support.x[t : t + 1, i : i + 1])[0, 0]
            torch.testing.assert_close(found[t, i], alone, rtol=1e-5, atol=1e-5)


def test_a_task_of_one_example_has_nothing_to_hold_out():
    one = Examples.full(torch.ones(1, 1, 5), torch.zeros(1, 1, dtype=torch.int64))
    assert bool((held_out_logits(PrototypeHead(), one, n_way=1) == -torch.inf).all())


def test_means_of_many_classes_are_those_of_few():
    support = random_support(2, size=120, ways=500, features=6)  # 60,000 cells: summed by class
    many = PrototypeHead().adapt(support, n_way=500)["prototypes"]
    for t, c in ((0, 0), (1, 1), (2, int(support.y[2, 7]))):
        rows = (support.y[t] == c) & support.mask[t]
        if bool(rows.any()):
            torch.testing.assert_close(many[t, c], support.x[t, rows].mean(0))


def test_shrinkage_is_the_posterior_mean_and_the_distance_follows():
    support = random_support(3)
    plain = PrototypeHead().adapt(support, n_way=4)
    shrunk = PrototypeHead(shrinkage=2.0).adapt(support, n_way=4)
    for t in range(3):
        here = plain["present"][t]
        centre = plain["prototypes"][t][here].mean(0)
        for c in torch.nonzero(here)[:, 0].tolist():
            n = int(((support.y[t] == c) & support.mask[t]).sum())
            expected = (n * plain["prototypes"][t, c] + 2 * centre) / (n + 2)
            torch.testing.assert_close(shrunk["prototypes"][t, c], expected)


def test_class_means_answer_as_prototypes_do():
    support, q = random_support(4), normal(3, 6, 5, seed=1)
    ours, theirs = ClassMeanHead(temperature=0.1), PrototypeHead(distance="cosine")
    got = ours.predict(ours.adapt(support, n_way=4), q)
    torch.testing.assert_close(got, theirs.predict(theirs.adapt(support, n_way=4), q))


def test_ridge_is_scikit_learns():
    linear_model = pytest.importorskip("sklearn.linear_model")
    support = random_support(5, tasks=1, size=12)
    head = RidgeHead(penalty=0.5, scale=1.0, balanced=False)
    rows = support.mask[0]
    x, y = support.x[0, rows], support.y[0, rows]
    alpha = 0.5 * float((x - x.mean(0)).square().sum()) / len(x)
    model = linear_model.Ridge(alpha=alpha).fit(x.numpy(), (y[:, None] == torch.arange(4)).double())
    q = normal(1, 6, 5, seed=1)
    got = head.predict(head.adapt(support, n_way=4), q)[0]
    present = (y[:, None] == torch.arange(4)).any(0)
    torch.testing.assert_close(got[:, present], torch.tensor(model.predict(q[0]))[:, present])


def test_primal_and_dual_ridge_agree():
    support = random_support(6, tasks=1, size=8, features=5)
    # a column of zeros changes nothing but takes the other form
    wide = Examples(
        torch.cat([support.x, torch.zeros(1, 8, 10, dtype=torch.float64)], 2),
        support.y,
        support.mask,
    )
    head, q = RidgeHead(), normal(1, 4, 5, seed=2)
    q_wide = torch.cat([q, torch.zeros(1, 4, 10, dtype=torch.float64)], 2)
    a = head.predict(head.adapt(support, n_way=4), q)
    b = head.predict(head.adapt(wide, n_way=4), q_wide)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("features", [4, 30])
def test_logistic_is_scikit_learns(balanced, features):
    linear_model = pytest.importorskip("sklearn.linear_model")
    y = torch.tensor([0] * 5 + [1] * 2 + [2] * 4)
    x = normal(11, features) + 0.5 * y[:, None]
    model = linear_model.LogisticRegression(
        C=2.0, class_weight="balanced" if balanced else None, tol=1e-10, max_iter=10_000
    ).fit(x.numpy(), y.numpy())
    head = LogisticHead(c=2.0, balanced=balanced, tolerance=1e-9)
    q = normal(1, 7, features, seed=1)
    got = head.predict(head.adapt(Examples.full(x[None], y[None]), n_way=3), q)[0].softmax(1)
    expected = torch.tensor(model.predict_proba(q[0].numpy()))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_logistic_ends_though_single_precision_is_too_coarse_for_its_tolerance(monkeypatch):
    """Tasks that are done must not keep the others' solver running on rounding errors."""
    g = generator(3)
    y = torch.arange(10).repeat_interleave(5).expand(6, -1)
    centres = torch.randn(6, 10, 32, generator=g).gather(1, y[..., None].expand(-1, -1, 32))
    x = F.normalize(centres + torch.randn(6, 50, 32, generator=g), dim=2)
    calls, product = [], logistic._Problem.curvature

    def counted(problem, p, v):
        calls.append(1)
        assert len(calls) < 1000  # some 65 are enough; it took thousands
        return product(problem, p, v)

    monkeypatch.setattr(logistic._Problem, "curvature", counted)
    head = LogisticHead(c=100.0, balanced=True, tolerance=1e-5)
    state = head.adapt(Examples.full(x, y), n_way=10)
    assert bool((head.predict(state, x).argmax(2) == y).all())


def test_logistic_takes_no_step_that_is_out_of_all_proportion(monkeypatch):
    """Where probabilities are saturated there is no curvature, and Newton's step has any length."""
    y = torch.arange(4).repeat_interleave(5)[None]
    x = normal(20, 8).float()[None]
    monkeypatch.setattr(logistic._Problem, "_solve", lambda self, p, gradient: 1e15 * gradient)
    head = LogisticHead(c=10.0, tolerance=1e-3)
    state = head.adapt(Examples.full(x, y), n_way=4)
    logits = head.predict(state, x)
    assert bool(logits.isfinite().all())
    loss = F.cross_entropy(logits[0], y[0])
    assert float(loss) < 0.5 * math.log(4)  # down the gradient, if slowly


def test_one_neighbour_answers_as_the_nearest_neighbour():
    support, q = random_support(8, tasks=1), normal(1, 30, 5, seed=1)
    head = NeighbourHead(neighbours=1)
    answer = head.predict(head.adapt(support, n_way=4), q)[0].argmax(1)
    rows = support.mask[0]
    nearest = torch.cdist(q[0], support.x[0, rows]).argmin(1)
    assert torch.equal(answer, support.y[0, rows][nearest])


def test_gradient_head_without_a_step_is_the_nearest_prototype():
    support, q = random_support(9), normal(3, 6, 5, seed=1)
    head = GradientHead(5, steps=0).double()
    logits = head.predict(head.adapt(support, n_way=4), q)
    plain = PrototypeHead()
    expected = plain.predict(plain.adapt(support, n_way=4), q)
    torch.testing.assert_close(logits.log_softmax(2), expected.log_softmax(2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_degenerate_supports_give_finite_answers(name):
    """One class; one example; identical examples; contradictory duplicates; NaN in padding."""
    head = HEADS[name]()
    same = torch.ones(1, 6, 5)
    mask = torch.ones(1, 6, dtype=torch.bool)
    q = torch.randn(1, 3, 5, generator=generator(1))
    for y, m in (
        (torch.zeros(1, 6, dtype=torch.int64), mask),
        (torch.zeros(1, 6, dtype=torch.int64), torch.arange(6)[None] == 0),
        (torch.arange(6)[None] % 2, mask),
    ):
        for x in (same, torch.where(m[..., None], same, torch.nan)):
            if name.startswith(("prototype", "cosine")) and not m.all():
                x = same  # these multiply by zero; the service never pads with NaN
            logits = head.predict(head.adapt(Examples(x, y, m), n_way=2), q)
            assert not bool(logits.isnan().any())
            assert bool(logits[..., 0].isfinite().all())


@pytest.mark.parametrize(
    "make",
    [
        lambda: RidgeHead(penalty=0),
        lambda: RidgeHead(scale=-1),
        lambda: LogisticHead(c=0),
        lambda: LogisticHead(temperature=0),
        lambda: NeighbourHead(neighbours=0),
        lambda: NeighbourHead(distance="l1"),
        lambda: NeighbourHead(temperature=0),
        lambda: GradientHead(0),
        lambda: PrototypeHead(shrinkage=-1),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ConfigError, match="got"):
        make()


@pytest.mark.parametrize("unit", [0.01, 1.0, 100.0])
def test_fine_tuning_goes_to_the_optimum_whatever_the_unit(unit):
    """Far enough it is the maximum likelihood, where the weighted gradient vanishes."""
    g = generator(1)
    y = torch.arange(3).repeat(8)[None]
    # classes overlap: the optimum is finite
    x = unit * (torch.randn(1, 24, 2, generator=g, dtype=torch.float64) + 0.3 * y[..., None])
    head = FineTunedHead(steps=20_000)
    state = head.adapt(Examples.full(x, y), n_way=3)
    gap = head.predict(state, x).softmax(2) - F.one_hot(y, 3)
    slope = gap.transpose(1, 2) @ x / 24 / unit
    assert float(slope.abs().max()) < 1e-6
    assert float(gap.mean(1).abs().max()) < 1e-6


def test_one_step_of_fine_tuning_by_hand():
    """From zero all classes are equally likely; rates are for features of mean square length 1
    beside a bias, so half of the rate is a step."""
    x = torch.tensor([[[3.0, 1], [1, 2], [-2, 1], [0, -1]]], dtype=torch.float64)
    y = torch.tensor([[0, 0, 1, 1]])
    head = FineTunedHead(steps=1, lr=0.5)
    unit = x.square().sum(2).mean().sqrt()
    gap = F.one_hot(y, 2).double()[0] - 0.5
    weight = 0.25 * gap.T @ (x[0] / unit) / 4
    bias = 0.25 * gap.mean(0)
    expected = x[0] / unit @ weight.T + bias
    torch.testing.assert_close(
        head.predict(head.adapt(Examples.full(x, y), n_way=2), x)[0], expected
    )


def test_baseline_plus_plus_answers_by_angle_alone():
    head, g = FineTunedHead(cosine=True), generator(0)
    y = torch.arange(4).repeat(5)[None]
    x = torch.randn(1, 20, 6, generator=g, dtype=torch.float64) + 2 * F.one_hot(y, 6)
    state, query = head.adapt(Examples.full(x, y), n_way=4), normal(1, 7, 6)
    torch.testing.assert_close(head.predict(state, query), head.predict(state, 5 * query))
    right = head.predict(state, x).argmax(2) == y
    assert float(right.double().mean()) > 0.9


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"lr": 0}, {"momentum": 1}, {"scale": -1}])
def test_fine_tuning_refuses_impossible_settings(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        FineTunedHead(**wrong)
