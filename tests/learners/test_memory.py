"""Memory learners: the conformance suite, and each against its paper's formulas step by step."""

import math

import pytest
import torch
import torch.nn.functional as F

from quickstudy.core import ConfigError, Episode, EpisodeSpec, Examples, TaskError, generator
from quickstudy.learners import MANN, SNAIL, LSTMLearner, stream_logits, stream_loss
from quickstudy.learners.memory import LSTMHead, MANNHead, SNAILHead
from quickstudy.nets import MLP, Conv4, Identity
from quickstudy.tasks import PoolSource
from quickstudy.testing import LearnerConformance, check_meta_gradient, gaussian_pool

SMALL = {"hidden_size": 6, "slots": 7, "width": 3, "heads": 2}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def made(kind, *args, **settings):
    """A learner in float64 whose weights do not depend on the tests before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(*args, **settings).double()


def stream(tasks=2, n_way=3, each=3, features=4, seed=0):
    """Streams of ``each`` examples of every class in a random order."""
    order = torch.stack(
        [torch.randperm(n_way * each, generator=generator(seed, t)) for t in range(tasks)]
    )
    return Examples.full(normal(tasks, n_way * each, features, seed=seed), order % n_way)


def padded(examples, junk=float("nan")):
    """The same examples with masked rows in front, in the middle and at the end."""

    def widen(v, value):
        gap = torch.full_like(v[:, :1], value)
        return torch.cat([gap, v[:, :2], gap, v[:, 2:], gap], 1)

    return Examples(widen(examples.x, junk), widen(examples.y, -7), widen(examples.mask, 0))


HEADS = {
    "lstm": lambda **o: made(LSTMHead, 4, n_way=3, hidden_size=6, **o),
    "mann": lambda **o: made(MANNHead, 4, n_way=3, **SMALL, **o),
    "mann with key strength": lambda **o: made(MANNHead, 4, n_way=3, **SMALL, key_strength=True),
}
ALL = HEADS | {"snail": lambda: made(SNAILHead, 4, n_way=3, length=10, filters=8)}


# ------------------------------------------------------------------ conformance


class SmallMemory(LearnerConformance):
    input_shape = (5,)
    meta_steps = 20


class TestLSTMOnEpisodes(SmallMemory):
    def make_learner(self):
        return LSTMLearner(MLP((5,), (4,)), n_way=3, hidden_size=6, protocol="episode")


class TestLSTMOnStreams(SmallMemory):
    def make_learner(self):
        return LSTMLearner(Identity((5,)), n_way=3, hidden_size=6)


class TestMANNOnEpisodes(SmallMemory):
    def make_learner(self):
        return MANN(MLP((5,), (4,)), n_way=3, **SMALL, key_strength=True, protocol="episode")


class TestMANNOnStreams(SmallMemory):
    def make_learner(self):
        return MANN(Identity((5,)), n_way=3, **SMALL)


class TestSNAIL(SmallMemory):
    def make_learner(self):
        return SNAIL(MLP((5,), (4,)), n_way=3, length=10, filters=8)


class TestSNAILOnImages(LearnerConformance):
    meta_steps = 10

    def make_learner(self):
        return SNAIL(Conv4(image_size=16, channels=8, activation="tanh"), n_way=3, filters=4)


# ------------------------------------------------------------------ one step of each, by hand


def sigmoid(v):
    return 1 / (1 + math.exp(-v))


def dot(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True))


def linear(layer, x):
    bias = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
    return [dot(row, x) + b for row, b in zip(layer.weight.tolist(), bias, strict=True)]


def softmax(v):
    top = max(v)
    e = [math.exp(x - top) for x in v]
    return [x / sum(e) for x in e]


class MANNByHand:
    """Santoro et al. (2016), section 3, for one task, in plain Python numbers."""

    def __init__(self, head):
        self.head = head
        n, w, h, r = head.slots, head.width, head.hidden_size, head.heads
        self.hidden, self.cell = [0.0] * h, [0.0] * h
        self.memory = [[1e-6] * w for _ in range(n)]
        self.weights = [[1.0] + [0.0] * (n - 1) for _ in range(r)]
        self.reads = [0.0] * (r * w)
        self.usage = [1.0] + [0.0] * (n - 1)

    def step(self, x):
        head = self.head
        n, w, h, r = head.slots, head.width, head.hidden_size, head.heads
        gates = [
            a + b
            for a, b in zip(
                linear(head.from_inputs, x),
                linear(head.from_state, self.reads + self.hidden),
                strict=True,
            )
        ]
        i, f, o, g = (gates[k * h : (k + 1) * h] for k in range(4))
        self.cell = [
            sigmoid(f[k]) * self.cell[k] + sigmoid(i[k]) * math.tanh(g[k]) for k in range(h)
        ]
        self.hidden = [sigmoid(o[k]) * math.tanh(self.cell[k]) for k in range(h)]
        emitted = linear(head.interface, self.hidden)
        size = len(emitted) // r
        rows = [emitted[k * size : (k + 1) * size] for k in range(r)]

        # the n-th smallest usage, and the least used slots (equation 6)
        by_usage = sorted(range(n), key=lambda slot: (round(self.usage[slot] * 2**13), slot))
        least = [1.0 if slot in by_usage[:r] else 0.0 for slot in range(n)]
        self.memory[by_usage[0]] = [0.0] * w
        writes = []
        for k in range(r):
            gate = sigmoid(rows[k][2 * w])  # equation 7
            writes.append([gate * self.weights[k][s] + (1 - gate) * least[s] for s in range(n)])
        for k in range(r):
            add = [math.tanh(v) for v in rows[k][w : 2 * w]]
            for s in range(n):  # equation 8
                for d in range(w):
                    self.memory[s][d] += writes[k][s] * add[d]
        self.reads = []
        for k in range(r):
            key = [math.tanh(v) for v in rows[k][:w]]
            scores = []
            for s in range(n):  # equation 2
                slot = self.memory[s]
                norms = [math.sqrt(dot(v, v)) + 1e-8 for v in (key, slot)]
                scores.append(dot(key, slot) / (norms[0] * norms[1]))
            if head.key_strength:
                strength = 1 + math.log1p(math.exp(rows[k][-1]))
                scores = [strength * v for v in scores]
            self.weights[k] = softmax(scores)  # equation 3
            self.reads += [  # equation 4
                sum(self.weights[k][s] * self.memory[s][d] for s in range(n)) for d in range(w)
            ]
        self.usage = [  # equation 5
            head.decay * self.usage[s] + sum(self.weights[k][s] + writes[k][s] for k in range(r))
            for s in range(n)
        ]
        return linear(head.out, self.hidden + self.reads)


class LSTMByHand:
    def __init__(self, head):
        self.head = head
        self.h = self.c = torch.zeros(1, head.lstm.hidden_size, dtype=torch.float64)

    def step(self, x):
        lstm = self.head.lstm
        gates = torch.tensor(x, dtype=torch.float64)[None] @ lstm.weight_ih_l0.T + lstm.bias_ih_l0
        gates = gates + self.h @ lstm.weight_hh_l0.T + lstm.bias_hh_l0
        i, f, g, o = gates.chunk(4, 1)
        self.c = f.sigmoid() * self.c + i.sigmoid() * g.tanh()
        self.h = o.sigmoid() * self.c.tanh()
        return self.head.out(self.h)[0].tolist()


def by_hand(head):
    return LSTMByHand(head) if isinstance(head, LSTMHead) else MANNByHand(head)


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_a_stream_is_the_papers_network_step_by_step(name):
    head, examples = HEADS[name](), stream()
    logits = head.stream_logits(examples, n_way=3)
    for t in range(2):
        network, label = by_hand(head), [0.0] * 3  # of the first step no label is known
        for s in range(examples.y.shape[1]):
            expected = network.step(examples.x[t, s].tolist() + label)
            torch.testing.assert_close(logits[t, s], torch.tensor(expected).double())
            label = F.one_hot(examples.y[t, s], 3).double().tolist()


@torch.no_grad()
def test_the_state_after_the_support_is_that_of_the_papers_network():
    head, examples = HEADS["mann"](), stream(tasks=1)
    state = head.adapt(examples, n_way=3)
    network, label = by_hand(head), [0.0] * 3
    for s in range(examples.y.shape[1]):
        network.step(examples.x[0, s].tolist() + label)
        label = F.one_hot(examples.y[0, s], 3).double().tolist()
    for part in ("memory", "weights", "usage", "hidden", "cell", "reads"):
        torch.testing.assert_close(
            state[part][0], torch.tensor(getattr(network, part), dtype=torch.float64)
        )
    assert state["label"][0].tolist() == label


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_a_query_is_the_next_step_of_the_stream(name):
    head, examples = HEADS[name](), stream()
    before = Examples.full(examples.x[:, :-1], examples.y[:, :-1])
    assert all(len(set(row.tolist())) == 3 for row in before.y)  # no class is absent
    last = head.stream_logits(examples, n_way=3)[:, -1]
    x = torch.cat([normal(2, 4, 4, seed=9), examples.x[:, -1:]], 1)
    logits = head.predict(head.adapt(before, n_way=3), x)
    torch.testing.assert_close(logits[:, -1], last)


def test_the_least_used_slot_is_emptied_before_it_is_written():
    head = HEADS["mann"]()
    state = head.start(torch.zeros(1, dtype=torch.float64))
    usage = torch.tensor([[5.0, 0.4, 3.0, 0.2, 2.0, 0.3, 1.0]], dtype=torch.float64)
    # the heads write to the least used slots alone, as their last reads were of nothing
    full = state._replace(
        memory=normal(1, 7, 3), usage=usage, weights=torch.zeros_like(state.weights)
    )
    known = head.from_inputs(normal(1, 7))
    after, empty = head.step(full, known), head.step(full._replace(memory=full.memory * 0), known)
    written = (after.memory != full.memory).any(2)[0].nonzero().flatten().tolist()
    assert written == [3, 5]  # two heads, two slots
    torch.testing.assert_close(after.memory[0, 3], empty.memory[0, 3])  # emptied
    kept = after.memory[0, 5] - empty.memory[0, 5]
    torch.testing.assert_close(kept, full.memory[0, 5])  # only added to


def test_slots_that_are_equally_unused_are_filled_in_their_order():
    head = HEADS["mann"]()
    state = head.start(torch.zeros(2, dtype=torch.float64))
    least, emptied = head._least_used(state.usage)
    assert least.tolist() == [[0, 1, 1, 0, 0, 0, 0]] * 2
    assert emptied.tolist() == [[1, 0, 1, 1, 1, 1, 1]] * 2


def snail_by_hand(head, x):
    """Return the logits of the last element of one sequence ``[S, D + n_way]``, by plain loops."""
    features = list(x)
    layers = list(head.layers)
    for layer in layers:
        if hasattr(layer, "blocks"):
            for place, block in enumerate(layer.blocks):
                assert block.dilation == 2**place
                made_of = []
                for t in range(len(features)):
                    past = t - block.dilation
                    before = features[past] if past >= 0 else torch.zeros_like(features[t])
                    both = block.gates.weight @ torch.cat([before, features[t]]) + block.gates.bias
                    half = len(both) // 2
                    made_of.append(torch.tanh(both[:half]) * torch.sigmoid(both[half:]))
                features = [torch.cat(pair) for pair in zip(features, made_of, strict=True)]
        else:
            read = []
            for t in range(len(features)):
                query = layer.queries(features[t])
                scores = torch.stack([layer.keys(features[s]) @ query for s in range(t + 1)])
                weights = (scores / math.sqrt(len(query))).softmax(0)
                read.append(sum(weights[s] * layer.values(features[s]) for s in range(t + 1)))
            features = [torch.cat(pair) for pair in zip(features, read, strict=True)]
    return head.out(features[-1])


@torch.no_grad()
def test_snail_is_the_papers_network_element_by_element():
    head, support = ALL["snail"](), stream(tasks=2, each=2)
    x = normal(2, 3, 4, seed=3)
    logits = head.predict(head.adapt(support, n_way=3), x)
    assert [type(layer).__name__ for layer in head.layers] == [
        "CausalAttention",
        "TemporalConvolution",
        "CausalAttention",
        "TemporalConvolution",
        "CausalAttention",
    ]
    assert [len(layer.blocks) for layer in head.layers if hasattr(layer, "blocks")] == [4, 4]
    for t in range(2):
        labels = F.one_hot(support.y[t], 3).double()
        known = torch.cat([support.x[t], labels], 1)
        for q in range(3):
            asked = torch.cat([x[t, q], torch.zeros(3, dtype=torch.float64)])
            expected = snail_by_hand(head, torch.cat([known, asked[None]]))
            torch.testing.assert_close(logits[t, q], expected)


# ------------------------------------------------------------------ causality, padding, sizes


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_a_later_example_changes_no_earlier_answer(name):
    head, examples = HEADS[name](), stream()
    logits = head.stream_logits(examples, n_way=3)
    for at in range(1, examples.y.shape[1]):
        x, y = examples.x.clone(), examples.y.clone()
        x[:, at:], y[:, at:] = 99.0, (y[:, at:] + 1) % 3
        other = head.stream_logits(Examples.full(x, y), n_way=3)
        assert torch.equal(other[:, :at], logits[:, :at])
        # the label of an example is not known when it is answered
        y = examples.y.clone()
        y[:, at] = (y[:, at] + 1) % 3
        other = head.stream_logits(Examples.full(examples.x, y), n_way=3)
        assert torch.equal(other[:, : at + 1], logits[:, : at + 1])
        if at + 1 < y.shape[1]:
            assert not torch.equal(other[:, at + 1], logits[:, at + 1])


@torch.no_grad()
def test_a_later_example_changes_no_earlier_feature_of_snail():
    head, support = ALL["snail"](), stream()
    features = head.adapt(support, n_way=3)["features"]
    x = support.x.clone()
    x[:, 5:] = 99.0
    other = head.adapt(Examples.full(x, support.y), n_way=3)["features"]
    assert torch.equal(other[:, :5], features[:, :5])
    assert not torch.equal(other[:, 5], features[:, 5])


@pytest.mark.parametrize("name", HEADS)
def test_padding_in_a_stream_is_skipped(name):
    head, examples = HEADS[name](), stream()
    logits = head.stream_logits(examples, n_way=3)
    wide = padded(examples)
    other = head.stream_logits(wide, n_way=3)
    torch.testing.assert_close(other[wide.mask], logits.flatten(0, 1))
    loss = stream_loss(head, wide, n_way=3)
    torch.testing.assert_close(loss, stream_loss(head, examples, n_way=3))
    loss.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_tasks_of_different_sizes_in_one_batch_are_those_one_by_one(name):
    head = ALL[name]()
    large, small = stream(tasks=1, each=3), stream(tasks=1, n_way=2, each=2, seed=5)
    x = torch.full((2, 9, 4), float("nan"), dtype=torch.float64)
    y, mask = torch.full((2, 9), -1), torch.zeros(2, 9, dtype=torch.bool)
    x[0], y[0], mask[0] = large.x[0], large.y[0], True
    x[1, 3:7], y[1, 3:7], mask[1, 3:7] = small.x[0], small.y[0], True
    query = normal(2, 3, 4, seed=2)
    together = head.predict(head.adapt(Examples(x, y, mask), n_way=3), query)
    for t, alone in enumerate((large, small)):
        expected = head.predict(head.adapt(alone, n_way=3), query[t : t + 1])
        torch.testing.assert_close(together[t : t + 1], expected)
    assert torch.isneginf(together[1, :, 2]).all()


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_many_queries_are_answered_in_pieces(name, monkeypatch):
    from quickstudy.learners.memory import sequence

    head, support = ALL[name](), stream()
    state, x = head.adapt(support, n_way=3), normal(2, 11, 4, seed=1)
    whole = head.predict(state, x)
    monkeypatch.setattr(sequence, "_STATES_AT_ONCE", 4)
    torch.testing.assert_close(head.predict(state, x), whole)
    assert head.predict(state, x[:, :0]).shape == (2, 0, 3)


@pytest.mark.parametrize("name", HEADS)
def test_the_gradient_of_a_stream_is_its_difference_quotient(name):
    episode = Episode(stream(), Examples.full(normal(2, 1, 4), torch.zeros(2, 1).long()), 3)
    check_meta_gradient(HEADS[name](), episode, steps=(1e-5, 2e-6))


# ------------------------------------------------------------------ labels


@torch.no_grad()
def test_label_numbering_matters_to_one_task_and_to_nothing_on_average():
    """Labels are one-hot inputs, so one numbering differs from another; as they are drawn anew in
    each episode, all numberings together are alike."""
    head, support = ALL["mann"](), stream(tasks=1)
    x = normal(1, 5, 4, seed=1)
    numberings = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]

    def mean_over_numberings(y):
        total = torch.zeros(1, 5, 3, dtype=torch.float64)
        for numbering in numberings:
            names = torch.tensor(numbering)
            state = head.adapt(Examples.full(support.x, names[y]), n_way=3)
            total += head.predict(state, x).softmax(2)[..., names]
        return total / len(numberings)

    one = head.predict(head.adapt(support, n_way=3), x)
    rolled = torch.tensor([1, 2, 0])
    state = head.adapt(Examples.full(support.x, rolled[support.y]), n_way=3)
    assert not torch.allclose(head.predict(state, x)[..., rolled], one)
    torch.testing.assert_close(
        mean_over_numberings(rolled[support.y])[..., rolled], mean_over_numberings(support.y)
    )


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("name", ALL)
def test_more_classes_than_it_was_made_for_are_refused(name):
    support = stream(n_way=4)
    with pytest.raises(TaskError, match=r"made for 3 classes.*the task has 4"):
        ALL[name]().adapt(support, n_way=4)


@pytest.mark.parametrize("name", ALL)
def test_regression_is_refused(name):
    support = Examples.full(normal(1, 3, 4), normal(1, 3))
    with pytest.raises(TaskError, match=r"real numbers. Use y.long\(\)"):
        ALL[name]().adapt(support, n_way=1)


@pytest.mark.parametrize("name", ALL)
def test_embeddings_of_another_width_are_refused(name):
    head = ALL[name]()
    with pytest.raises(ConfigError, match=r"features=4.*\[2, 9, 5\]"):
        head.adapt(stream(features=5), n_way=3)
    state = head.adapt(stream(), n_way=3)
    with pytest.raises(ConfigError, match="features=4"):
        head.predict(state, normal(2, 3, 5))


def test_settings_are_checked():
    with pytest.raises(ConfigError, match=r"heads=4 write to .* slots=3"):
        MANNHead(4, n_way=3, slots=3)
    for decay in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"decay must lie in \[0, 1\)"):
            MANNHead(4, n_way=3, decay=decay)
    with pytest.raises(ConfigError, match="protocol needs 'stream' or 'episode'"):
        LSTMHead(4, n_way=3, protocol="both")
    with pytest.raises(ConfigError, match="hidden_size must be at least 1"):
        LSTMHead(4, n_way=3, hidden_size=0)
    with pytest.raises(ConfigError, match="length must be at least 1"):
        SNAILHead(4, n_way=3, length=0)


def test_a_state_of_another_learner_is_refused():
    state = ALL["lstm"]().adapt(stream(), n_way=3)
    for name in ("mann", "snail"):
        with pytest.raises(TaskError, match="state of another learner"):
            ALL[name]().predict(state, normal(2, 3, 4))


@torch.no_grad()
def test_the_memory_holds_what_the_state_alone_has_no_room_for():
    """Usage spreads over the slots: after 9 examples no slot but the first is unused."""
    head = made(MANNHead, 4, n_way=3, hidden_size=6, slots=7, width=3, heads=1)
    state = head.adapt(stream(tasks=1), n_way=3)
    assert bool((state["memory"].abs().amax(2) > 1e-3).all())


def test_stream_logits_of_an_embedding_learner_are_those_of_its_head_on_embeddings():
    learner = made(LSTMLearner, MLP((5,), (4,)), n_way=3, hidden_size=6)
    examples = stream(features=5)
    z, _ = learner.encoder.encode(examples.x)
    expected = learner.head.stream_logits(Examples.full(z, examples.y), n_way=3)
    assert torch.equal(stream_logits(learner, examples, n_way=3), expected)
    source = PoolSource(gaussian_pool(6, 8, (5,)))
    episode = source.episodes(EpisodeSpec(3, 3, 2), range(2), seed=0)
    loss = learner.float().training_loss(episode, progress=0.0)
    torch.testing.assert_close(loss, stream_loss(learner, episode.support, n_way=3))


@pytest.mark.parametrize("name", ALL)
def test_a_support_sorted_by_class_is_not_trained_on(name):
    episode = Episode(stream(), Examples.full(normal(2, 1, 4), torch.zeros(2, 1).long()), 3)
    with pytest.raises(ConfigError, match="Set roles='fixed'"):
        ALL[name]().training_loss(episode, progress=0.0, roles=lambda e: e)
