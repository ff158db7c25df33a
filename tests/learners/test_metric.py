"""Metric learners against their formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.core import ConfigError, Episode, EpisodeSpec, Examples, generator
from quickstudy.evaluation import evaluate
from quickstudy.learners import NearestNeighbour, meta_loss
from quickstudy.learners.metric import (
    FullContext,
    MatchingHead,
    MatchingNetwork,
    PrototypeHead,
    PrototypicalNetwork,
)
from quickstudy.nets import MLP
from quickstudy.tasks import PoolSource
from quickstudy.testing import ConstantLearner, OracleLearner, PositionLearner, gaussian_pool


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def uneven():
    """Two tasks of 7 rows: 3 + 1 + 2 shots and padding, and 2 + 4 + 0 shots and padding."""
    y = torch.tensor([[0, 2, 0, 1, 0, 2, 1], [1, 0, 1, 1, 0, 1, 2]])
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[:, 6] = False
    return Examples(normal(2, 7, 4), y, mask)


def test_prototypes_are_masked_means():
    support = uneven()
    state = PrototypeHead().adapt(support, n_way=3)
    for t in range(2):
        for c in range(3):
            rows = support.x[t][(support.y[t] == c) & support.mask[t]]
            assert bool(state["present"][t, c]) == (len(rows) > 0)
            expected = rows.mean(0) if len(rows) else torch.zeros(4, dtype=torch.float64)
            torch.testing.assert_close(state["prototypes"][t, c], expected)


def test_squared_distances_and_absent_classes():
    support, x = uneven(), normal(2, 5, 4, seed=1)
    head = PrototypeHead(temperature=2.0)
    state = head.adapt(support, n_way=3)
    logits = head.predict(state, x)
    expected = -(x[:, :, None] - state["prototypes"][:, None]).square().sum(3) / 2
    torch.testing.assert_close(logits[0], expected[0], rtol=1e-6, atol=1e-6)
    assert torch.isneginf(logits[1, :, 2]).all()
    assert (logits.softmax(2)[1, :, 2] == 0).all()


def test_cosine_prototypes_are_means_of_unit_vectors():
    support, x = uneven(), normal(2, 5, 4, seed=1)
    head = PrototypeHead(distance="cosine", temperature=0.5)
    logits = head.predict(head.adapt(support, n_way=3), x)
    unit = F.normalize(support.x[0], dim=1)
    for c in range(3):
        mean = unit[(support.y[0] == c) & support.mask[0]].mean(0)
        expected = F.cosine_similarity(x[0], mean[None], dim=1) / 0.5
        torch.testing.assert_close(logits[0, :, c], expected, rtol=1e-6, atol=1e-6)
    # unit vectors do not see the length of a query
    torch.testing.assert_close(head.predict(head.adapt(support, n_way=3), 7 * x), logits)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_matching_is_the_hand_computed_attention(temperature):
    support, x = uneven(), normal(2, 5, 4, seed=1)
    head = MatchingHead(4, temperature=temperature)
    logits = head.predict(head.adapt(support, n_way=3), x)
    for t in range(2):
        keep = support.mask[t]
        cosine = F.cosine_similarity(x[t][:, None], support.x[t][keep][None], dim=2)
        votes = (cosine / temperature).softmax(1) @ F.one_hot(support.y[t][keep], 3).double()
        torch.testing.assert_close(logits[t].exp(), votes, rtol=1e-6, atol=1e-9)


def test_full_context_reads_the_order_and_skips_padding():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        context = FullContext(4).double()
    z, mask = normal(1, 5, 4), torch.tensor([[True, False, True, True, False]])
    read = context.support(z, mask)[mask]
    torch.testing.assert_close(read, context.support(z[:, mask[0]], mask[:, mask[0]])[0])
    backwards = context.support(z.flip(1), mask.flip(1)).flip(1)[mask]
    assert not torch.allclose(read, backwards)


def test_without_reads_full_context_leaves_queries_alone():
    context = FullContext(4, steps=0).double()
    x = normal(2, 3, 4)
    mask = torch.ones(2, 5, dtype=torch.bool)
    assert torch.equal(context.query(x, normal(2, 5, 4), mask), x)


@pytest.mark.parametrize("head", [PrototypeHead, lambda **o: MatchingHead(4, **o)])
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperatures_must_be_positive(head, temperature):
    with pytest.raises(ConfigError, match="temperature must be positive"):
        head(temperature=temperature)


def test_an_unknown_distance_is_refused():
    with pytest.raises(ConfigError, match="'manhattan'"):
        PrototypeHead(distance="manhattan")


def test_losses_of_padded_queries_of_absent_classes_stay_finite():
    support = uneven()
    query = Examples(
        normal(2, 2, 4), torch.tensor([[0, 1], [0, 2]]), torch.tensor([[True, True], [True, False]])
    )  # label 2 is absent in task 1
    head = PrototypeHead(learn_temperature=True)
    loss = meta_loss(head, Episode(support, query, 3))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(head.log_scale.grad)


def test_nearest_neighbour_takes_the_nearest():
    support, x = uneven(), normal(2, 5, 4, seed=1)
    learner = NearestNeighbour()
    logits = learner.predict(learner.adapt(support, n_way=3), x)
    for t in range(2):
        rows, labels = support.x[t][support.mask[t]], support.y[t][support.mask[t]]
        nearest = (x[t][:, None] - rows[None]).norm(dim=2).argmin(1)
        assert torch.equal(logits[t].argmax(1), labels[nearest])


def test_known_scores_of_the_fakes():
    source = PoolSource(gaussian_pool(8, 10, (3,), tell_class=True))
    for n_way in (2, 5):
        spec = EpisodeSpec(n_way, 1, 3)
        assert evaluate(OracleLearner(), source, spec, episodes=20).mean == 1.0
        for label in (0, n_way - 1):
            report = evaluate(ConstantLearner(label), source, spec, episodes=20)
            assert report.scores == pytest.approx(1 / n_way)
        for interleaved in (False, True):
            dummy = PositionLearner(interleaved=interleaved)
            report = evaluate(dummy, source, spec, episodes=300)
            assert abs(report.mean - 1 / n_way) < 2 * report.ci95


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(1, 9)
)
def test_any_shape(tasks, n_way, shots, queries, features):
    y = torch.arange(n_way).repeat(shots).expand(tasks, -1)
    support = Examples.full(normal(tasks, n_way * shots, features), y)
    x = normal(tasks, queries, features, seed=2)
    for learner in (
        PrototypeHead(),
        PrototypeHead(distance="cosine"),
        MatchingHead(features),
        NearestNeighbour(),
    ):
        logits = learner.predict(learner.adapt(support, n_way=n_way), x)
        assert logits.shape == (tasks, queries, n_way)
        assert torch.isfinite(logits).all()


# ------------------------------------------------------------- full context, by the paper


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def lstm(cell, x, h, c):
    """One step of an LSTM with PyTorch's parameters, in NumPy: input, forget, cell, output gate."""
    w_x, w_h, b_x, b_h = (
        getattr(cell, n).detach().numpy() for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    i, f, g, o = np.split(x @ w_x.T + b_x + h @ w_h.T + b_h, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def paper_query(context, query, support):
    """Vinyals et al. (2016), appendix A.1, equations 3 to 6, for one query: written from there."""
    width = len(query)
    h, c = query, np.zeros(2 * width)  # before the first step the cell has said nothing
    for _ in range(context.steps):
        a = np.exp(support @ h - (support @ h).max())
        r = (a / a.sum()) @ support  # equations 5 and 6
        out, c = lstm(context.read_cell, query, np.concatenate([h, r]), c)  # equation 3
        h = out[:width] + query  # equation 4
    return h


def paper_support(context, support):
    """The same, appendix A.2: a bidirectional LSTM plus the embedding itself."""
    found = support.copy()
    for cell, order in (
        (context.forward_cell, range(len(support))),
        (context.backward_cell, range(len(support) - 1, -1, -1)),
    ):
        h = c = np.zeros(support.shape[1])
        for i in order:
            h, c = lstm(cell, support[i], h, c)
            found[i] += h
    return found


def full_context(steps, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FullContext(4, steps=steps).double()


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_full_context_is_the_papers(steps):
    context, z, x = full_context(steps), normal(2, 5, 4), normal(2, 3, 4, seed=1)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    read = context.support(z, mask)
    found = context.query(x, read, mask)
    for t in range(2):
        support = paper_support(context, z[t, mask[t]].numpy())
        np.testing.assert_allclose(read[t, mask[t]].detach(), support, rtol=1e-12)
        for q in range(3):
            expected = paper_query(context, x[t, q].numpy(), support)
            np.testing.assert_allclose(found[t, q].detach(), expected, rtol=1e-12)


def test_one_step_reads_the_support_and_each_further_one_changes_the_answer():
    x, mask = normal(1, 3, 4, seed=1), torch.ones(1, 5, dtype=torch.bool)
    supports = normal(1, 5, 4), normal(1, 5, 4, seed=9)
    one, other = (full_context(1).query(x, s, mask) for s in supports)
    assert (one - other).abs().amax(2).min() > 1e-3
    before = x
    for steps in range(1, 4):
        now = full_context(steps).query(x, supports[0], mask)
        assert (now - before).abs().amax(2).min() > 1e-6
        before = now


def test_every_step_has_a_gradient_through_what_it_read():
    context, mask = full_context(1), torch.ones(1, 5, dtype=torch.bool)
    support = normal(1, 5, 4).requires_grad_()
    context.query(normal(1, 2, 4, seed=1), support, mask).square().sum().backward()
    assert (support.grad.abs().sum(2) > 0).all()
    assert (context.read_cell.weight_hh.grad[:, 4:].abs().sum() > 0).all()  # columns of the readout


# ------------------------------------------------------------------- settings out of range


@pytest.mark.parametrize("temperature", ["1", None, True, float("inf")])
def test_settings_of_another_type_are_refused_by_name(temperature):
    with pytest.raises(ConfigError, match="temperature"):
        MatchingHead(4, temperature=temperature)


@pytest.mark.parametrize("bad", [{"features": 0}, {"features": 10**12}, {"features": 2.5}])
def test_impossible_widths_are_refused(bad):
    with pytest.raises(ConfigError, match="features"):
        MatchingHead(**bad, full_context=True)
    with pytest.raises(ConfigError, match="steps"):
        FullContext(4, steps=-1)


def test_a_class_is_no_encoder():
    for network in (PrototypicalNetwork, MatchingNetwork):
        with pytest.raises(ConfigError, match="encoder"):
            network(MLP)
        with pytest.raises(ConfigError, match="encoder"):
            network("conv4")
