"""The in-context transformer against a loop written from its description, and what it promises."""

import math

import pytest
import torch
import torch.nn.functional as F

from quickstudy.core import ConfigError, Examples, TaskError, generator
from quickstudy.learners import InContextTransformer
from quickstudy.learners.heads import InContextHead, PrototypeHead
from quickstudy.learners.incontext import sets
from quickstudy.nets import MLP, Conv4, PairBlock

WIDTH, WAYS = 5, 3


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def loud(learner):
    """Return a learner whose transformer is heard: it starts nearly silent."""
    torch.nn.init.normal_(getattr(learner, "head", learner).to_logit.weight)
    return learner.eval()


def made(features=WIDTH, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return loud(InContextHead(features, width=8, **options).double())


EVERY = {
    "keys and relations": made,
    "relations": lambda: made(None),
    "distances": lambda: made(distance="euclidean"),
    "distances, relations": lambda: made(None, distance="euclidean", layers=1),
}


def uneven():
    """Two tasks of 7 rows: 3 + 1 + 2 shots and padding, and 2 + 4 + 0 shots and padding."""
    y = torch.tensor([[0, 2, 0, 1, 0, 2, 1], [1, 0, 1, 1, 0, 1, 2]])
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[:, 6] = False
    return Examples(normal(2, 7, WIDTH), y, mask)


def answers(head, support, x, n_way=WAYS):
    with torch.no_grad():
        return head.predict(head.adapt(support, n_way=n_way), x)


# --------------------------------------------------------------------------- by hand


def attended(block, pairs, c, cached, relations, between, rows, number):
    """Return what pair ``c`` of a query reads, written as a loop over members and heads."""
    parts = []
    ask = block.to_read(block.read_norm(pairs[c])).view(block.heads, -1) if block.cached else None
    for h in range(block.heads):
        scores, found = [], []
        for i in rows:
            r = relations[i]
            score = 20 * math.tanh(float(block.relation_score.weight[h] @ r) / 20)
            value = r
            if block.cached:
                key, own = (v[number, i].view(block.heads, -1)[h] for v in cached)
                scale = min(20.0, math.exp(float(block.log_scale[0, h])))
                score += scale * float(F.normalize(ask[h], dim=0) @ key)
                value = torch.cat([r, own])
            scores.append(score)
            found.append(value)
        weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
        parts.append((weights[:, None] * torch.stack(found)).sum(0))
    return block.from_read(torch.cat(parts))


def compared(block, pairs, c, between, present):
    """Return what pair ``c`` reads in the pairs of the other classes."""
    wide = [block.to_class(block.class_norm(p)).view(3, block.heads, -1) for p in pairs]
    parts = []
    for h in range(block.heads):
        q = F.normalize(wide[c][0, h], dim=0)
        scale = min(20.0, math.exp(float(block.log_scale[1, h])))
        scores = torch.stack(
            [
                scale * (q @ F.normalize(wide[d][1, h], dim=0))
                + block.between_score.weight[h, 0] * between[c, d] / 10
                for d in present
            ]
        ).softmax(0)
        parts.append(sum(s * wide[d][2, h] for s, d in zip(scores, present, strict=True)))
    return block.from_class(torch.cat(parts))


def by_hand(head, x, y, query):
    """Return the logits of one query, given the support rows of one task."""
    unit = F.normalize(x, dim=1)
    scale = head.log_scale.exp()
    rows = {c: (y == c).nonzero()[:, 0].tolist() for c in range(WAYS)}
    present = [c for c in rows if rows[c]]
    mean = torch.stack(
        [unit[rows[c]].mean(0) if rows[c] else torch.zeros_like(unit[0]) for c in rows]
    )
    q = F.normalize(query, dim=0)
    near = scale * torch.stack([q @ F.normalize(m, dim=0) for m in mean])
    between = scale * torch.stack([F.normalize(mean, dim=1) @ m for m in mean])
    middle = near[present].mean()
    relations = [
        F.gelu(head.to_relation(torch.stack([scale * (q @ u) - middle, near[y[i]] - middle]) / 10))
        for i, u in enumerate(unit)
    ]
    size = lambda v: v / (v.square().mean(-1, keepdim=True) + 1e-12).sqrt()  # noqa: E731
    cached, pairs = (), []
    if head.features is not None:
        tokens, asked = head.to_token(size(x)), head.to_token(size(query))
        kept = [block.cache(tokens[None]) for block in head.blocks]
        cached = tuple(torch.stack([side[s][0] for side in kept]) for s in (0, 1))
    for c in range(WAYS):
        others = [d for d in present if d != c]
        facts = [
            near[c] - middle,
            torch.tensor(10 * math.log(1 + len(rows[c])), dtype=torch.float64),
            between[c, c],
            between[c, others].mean() if others else torch.tensor(0.0),
            torch.tensor(10 * math.log(1 + len(present)), dtype=torch.float64),
        ]
        parts = [torch.stack([f.double() for f in facts]) / 10]
        if head.features is not None:
            m = tokens[rows[c]].mean(0) if rows[c] else torch.zeros_like(asked)
            parts += [asked * m, (asked - m) ** 2]
        pairs.append(head.to_pair(torch.cat(parts)))
    for number, block in enumerate(head.blocks):
        read = [
            attended(block, pairs, c, cached, relations, between, rows[c], number)
            if rows[c]
            else block.from_read.bias
            for c in range(WAYS)
        ]
        pairs = [p + r for p, r in zip(pairs, read, strict=True)]
        told = [compared(block, pairs, c, between, present) for c in range(WAYS)]
        pairs = [p + t for p, t in zip(pairs, told, strict=True)]
        pairs = [p + block.outer(F.gelu(block.inner(block.own_norm(p)))) for p in pairs]
    correction = torch.cat([head.to_logit(head.last_norm(p)) for p in pairs])
    return torch.where(torch.isin(torch.arange(WAYS), torch.tensor(present)),
                       near + correction, -torch.inf)  # fmt: skip


@pytest.mark.parametrize("features", [WIDTH, None])
def test_the_transformer_is_the_one_described(features):
    head, support, x = made(features, heads=2), uneven(), normal(2, 3, WIDTH, seed=1)
    got = answers(head, support, x)
    with torch.no_grad():
        for t in range(2):
            kept = support.mask[t]
            for i in range(3):
                expected = by_hand(head, support.x[t][kept], support.y[t][kept], x[t, i])
                torch.testing.assert_close(got[t, i], expected, rtol=1e-9, atol=1e-9)


# --------------------------------------------------------------------------- what it promises


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("features", [WIDTH, None])
def test_it_starts_as_the_nearest_class_mean(features, distance):
    torch.manual_seed(0)
    head = InContextHead(features, width=8, distance=distance).double()
    support, x = uneven(), normal(2, 5, WIDTH, seed=1)
    nearest = answers(PrototypeHead(distance=distance).double(), support, x)
    torch.testing.assert_close(answers(head, support, x), nearest, rtol=0, atol=0.02)


@pytest.mark.parametrize("name", EVERY)
def test_examples_may_come_later(name):
    head, support, x = EVERY[name](), uneven(), normal(2, 4, WIDTH, seed=1)
    first, second, third = (
        Examples(support.x[:, a:b], support.y[:, a:b], support.mask[:, a:b])
        for a, b in ((0, 2), (2, 6), (6, 7))
    )
    state = head.adapt(first, n_way=WAYS)
    for more in (second, third):  # the third is all padding
        state = head.extend(state, more)
    torch.testing.assert_close(
        head.predict(state, x), head.predict(head.adapt(support, n_way=WAYS), x)
    )


def test_examples_may_come_later_in_float32():
    head = made().float()
    x, y = torch.randn(1, 500, WIDTH, generator=generator(3)), torch.arange(500)[None] % WAYS
    query = torch.randn(1, 50, WIDTH, generator=generator(4))
    state = head.adapt(Examples.full(x[:, :10], y[:, :10]), n_way=WAYS)
    for i in range(10, 500, 70):
        state = head.extend(state, Examples.full(x[:, i : i + 70], y[:, i : i + 70]))
    fresh = answers(head, Examples.full(x, y), query)
    with torch.no_grad():
        assert float((head.predict(state, query) - fresh).abs().max()) < 1e-5 * 20  # of logits
        assert float((head.predict(state, query).softmax(2) - fresh.softmax(2)).abs().max()) < 1e-5


@pytest.mark.parametrize("name", EVERY)
def test_classes_may_come_later(name):
    head, support, x = EVERY[name](), uneven(), normal(2, 4, WIDTH, seed=1)
    state = head.adapt(support, n_way=WAYS)
    more = Examples.full(normal(2, 2, WIDTH, seed=5), torch.tensor([[3, 4], [4, 0]]))
    both = Examples(*(torch.cat([getattr(support, n), getattr(more, n)], 1) for n in
                      ("x", "y", "mask")))  # fmt: skip
    torch.testing.assert_close(
        head.predict(head.extend(state, more, n_way=5), x), answers(head, both, x, n_way=5)
    )


def test_what_cannot_be_added_is_refused():
    head, support = made(), uneven()
    state = head.adapt(support, n_way=WAYS)
    with pytest.raises(TaskError, match="label"):
        head.extend(state, Examples.full(normal(2, 1, WIDTH), torch.tensor([[3], [0]])))
    with pytest.raises(ConfigError, match="lose"):
        head.extend(state, support, n_way=2)
    with pytest.raises(TaskError, match="2 tasks"):
        head.extend(state, support.tasks(slice(0, 1)))
    with pytest.raises(ConfigError, match="5 numbers"):
        head.extend(state, Examples.full(normal(2, 1, 4), torch.zeros(2, 1).long()))
    other = made(None).adapt(support, n_way=WAYS)
    with pytest.raises(TaskError, match="keys"):
        head.predict(other, normal(2, 1, WIDTH))


@pytest.mark.parametrize("name", EVERY)
def test_order_and_names_change_nothing_beyond_rounding(name):
    head, support, x = EVERY[name]().float(), uneven().to("cpu", torch.float32), None
    x = normal(2, 4, WIDTH, seed=1).float()
    wanted = answers(head, support, x)
    order = torch.tensor([5, 2, 6, 0, 3, 1, 4])
    shuffled = Examples(support.x[:, order], support.y[:, order], support.mask[:, order])
    torch.testing.assert_close(answers(head, shuffled, x), wanted, rtol=1e-5, atol=1e-5)
    names = torch.tensor([2, 0, 1])
    renamed = Examples(support.x, names[support.y], support.mask)
    got = answers(head, renamed, x)[..., names]
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_many_queries_are_answered_in_parts(monkeypatch):
    head, support, x = made(), uneven(), normal(2, 9, WIDTH, seed=1)
    whole = answers(head, support, x)
    monkeypatch.setattr(sets, "_NUMBERS_AT_ONCE", 1)
    torch.testing.assert_close(answers(head, support, x), whole)
    assert answers(head, support, x[:, :0]).shape == (2, 0, WAYS)


@pytest.mark.parametrize("width", [2, 17])
def test_relations_take_embeddings_of_any_width(width):
    head, y = made(None), torch.arange(6)[None] % WAYS
    x, query = normal(1, 6, width), normal(1, 4, width, seed=1)
    wanted = answers(head, Examples.full(x, y), query)
    turn = torch.linalg.qr(normal(width, width, seed=2))[0]
    torch.testing.assert_close(answers(head, Examples.full(x @ turn, y), query @ turn), wanted)


@pytest.mark.parametrize("name", EVERY)
def test_embeddings_of_zeros_and_copies_have_finite_answers_and_gradients(name):
    head = EVERY[name]()
    x = torch.zeros(1, 6, WIDTH, dtype=torch.float64, requires_grad=True)
    logits = head.predict(head.adapt(Examples.full(x, torch.arange(6)[None] % 3), n_way=3), x)
    logits.log_softmax(2).sum().backward()
    assert bool(logits.isfinite().all())
    assert bool(x.grad.isfinite().all())


def test_from_images_with_more_examples_later():
    torch.manual_seed(0)
    learner = loud(InContextTransformer(Conv4(image_size=16, channels=8, norm="group"), width=8))
    learner = learner.double()
    x, y = normal(1, 9, 1, 16, 16), torch.arange(9)[None] % WAYS
    state = learner.adapt(Examples.full(x[:, :4], y[:, :4]), n_way=WAYS)
    state = learner.extend(state, Examples.full(x[:, 4:], y[:, 4:]))
    wanted = learner.predict(learner.adapt(Examples.full(x, y), n_way=WAYS), x)
    torch.testing.assert_close(learner.predict(state, x), wanted)


def test_statistics_of_the_support_forbid_more_examples():
    learner = InContextTransformer(Conv4(image_size=16, channels=8, norm="support"), width=8)
    support = Examples.full(torch.rand(1, 3, 1, 16, 16), torch.arange(3)[None])
    state = learner.adapt(support, n_way=3)
    with pytest.raises(ConfigError, match="statistics"):
        learner.extend(state, support)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 6, "heads": 4}, "multiple"),
        ({"distance": "manhattan"}, "manhattan"),
        ({"temperature": 0.0}, "temperature"),
        ({"dropout": 1.0}, "dropout"),
        ({"layers": 0}, "layers"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        InContextHead(4, **options)


def test_gradients_of_a_layer_equal_central_differences():
    head, support, x = made(), uneven(), normal(2, 2, WIDTH, seed=1)
    weights = head.blocks[0].to_cache.weight
    along, step = normal(*weights.shape, seed=7), 1e-5

    def loss(distance):
        start = weights.data
        weights.data = start + distance * along
        value = head.predict(head.adapt(support, n_way=WAYS), x)[:, :, :2].square().sum()
        weights.data = start
        return value

    (slope,) = torch.autograd.grad(loss(0.0), weights)
    gap = (loss(step) - loss(-step)).detach()
    torch.testing.assert_close((slope * along).sum(), gap / (2 * step), rtol=1e-6, atol=1e-6)


def test_an_encoder_may_be_any_module():
    learner = InContextTransformer(MLP((4,), (6, 5)), width=8)
    assert learner.head.features == 5
    assert learner.family == "in-context"
    assert PairBlock(8, heads=2, relations=3, hidden=8).cached


@pytest.mark.parametrize("wrong", [{"n_way": 6.5}, {"n_way": True}, {"more": torch.ones(1, 2, 3)}])
def test_what_extend_cannot_take_is_named(wrong):
    head, g = InContextHead(), generator(0)
    support = Examples.full(torch.randn(1, 4, 3, generator=g), torch.tensor([[0, 1, 0, 1]]))
    given = {"more": support, "n_way": None} | wrong
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        head.extend(head.adapt(support, n_way=2), given["more"], n_way=given["n_way"])
    with pytest.raises(TaskError, match="another learner"):
        head.extend({}, support)
