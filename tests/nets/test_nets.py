"""Encoders: padding stays out, statistics are whose they say, buffers move only when told."""

import pytest
import torch
import torch.nn.functional as F

from quickstudy.core import ConfigError, generator
from quickstudy.nets import MLP, Conv4, Identity, NormContext, ResNet12, SupportNorm, build_norm

ENCODERS = {
    **{
        f"conv4-{n}": lambda n=n: Conv4(image_size=16, channels=8, norm=n)
        for n in ("batch", "group", "support")
    },
    **{
        f"resnet12-{n}": lambda n=n: ResNet12(
            in_channels=1, image_size=16, widths=(4, 4, 4, 8), norm=n
        )
        for n in ("batch", "group", "support")
    },
    "mlp": lambda: MLP((1, 16, 16), (8, 5)),
    "identity": lambda: Identity((1, 16, 16)),
}


@pytest.fixture(params=ENCODERS)
def encoder(request):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ENCODERS[request.param]().double()


def images(*shape, seed=0):
    return torch.randn(*shape, 1, 16, 16, generator=generator(seed), dtype=torch.float64)


def test_shapes_and_padding_in_both_modes(encoder):
    x, mask = images(2, 6), torch.ones(2, 6, dtype=torch.bool)
    mask[0, 4:] = mask[1, 1] = False
    loud = x.masked_fill(~mask[..., None, None, None], 1e6)
    for training in (True, False):
        z, stats = encoder.train(training).encode(loud, mask)
        assert z.shape == (2, 6, encoder.out_features)
        assert (z[~mask] == 0).all()
        assert bool(stats) == encoder.episodic
        quiet, _ = encoder.encode(x, mask)
        torch.testing.assert_close(z, quiet, rtol=0, atol=0)
        # nothing else than the rows that count: batch statistics are those of 9 images
        alone = encoder.encode(x[mask][None])[0][0] if not encoder.episodic else None
        if alone is not None:
            torch.testing.assert_close(z[mask], alone, rtol=1e-10, atol=1e-10)


def test_buffers_move_only_when_told(encoder):
    buffers = dict(encoder.named_buffers())
    before = {n: b.clone() for n, b in buffers.items()}
    for training in (True, False):
        encoder.train(training).encode(images(2, 5))
        assert all(torch.equal(b, before[n]) for n, b in buffers.items())
    encoder.train().encode(images(2, 5), track=True)
    assert all(not torch.equal(b, before[n]) for n, b in buffers.items())


def test_wrong_shapes_say_what_was_expected(encoder):
    with pytest.raises(ConfigError, match=r"\[1, 16, 16\]; got \[3, 16, 16\]"):
        encoder.encode(torch.zeros(1, 2, 3, 16, 16, dtype=torch.float64))


def test_support_statistics_serve_the_query():
    norm = SupportNorm(3, name="n").double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.0, -1.0]))
    draw = {"generator": generator(4), "dtype": torch.float64}
    support, query = torch.randn(5, 3, 2, 2, **draw) * 3 + 1, torch.randn(4, 3, 2, 2, **draw)
    owner = torch.tensor([0, 1, 0, 1, 1])  # uneven tasks, interleaved
    context = NormContext(owner, 2)
    got = norm(support, context)
    other = norm(query, NormContext(torch.tensor([1, 1, 0, 0]), 2, context.found))

    def manual(x, rows):
        mean, var = rows.mean((0, 2, 3)), rows.var((0, 2, 3), unbiased=False)
        z = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        return z * norm.weight[:, None, None] + norm.bias[:, None, None]

    for t in (0, 1):
        mine = support[owner == t]
        torch.testing.assert_close(got[owner == t], manual(mine, mine))
    torch.testing.assert_close(other[:2], manual(query[:2], support[owner == 1]))
    torch.testing.assert_close(other[2:], manual(query[2:], support[owner == 0]))


def test_pooling_before_the_activation_is_pooling_after_it():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Conv4(image_size=16, channels=8, norm="batch").double().eval()
    x = images(7)
    z = x
    for conv, norm in zip(net.convs, net.norms, strict=True):
        y = F.batch_norm(
            conv(z), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5
        )
        z = F.max_pool2d(F.relu(y), 2)
    torch.testing.assert_close(net.encode(x[None])[0][0], z.flatten(1))


def test_published_sizes():
    assert Conv4(image_size=28).out_features == 64
    assert Conv4(in_channels=3, image_size=84).out_features == 1600
    assert ResNet12().out_features == 640


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Conv4(image_size=15), "image_size=15"),
        (lambda: Conv4(activation="gelu"), "gelu"),
        (lambda: Conv4(norm="layer"), "layer"),
        (lambda: ResNet12(image_size=8), "image_size >= 16"),
        (lambda: ResNet12(widths=(1, 2, 3)), "4 values in a tuple"),
    ],
)
def test_impossible_settings_are_refused(build, says):
    with pytest.raises(ConfigError, match=says):
        build()


@pytest.mark.parametrize("kind", ["batch", "group", "support"])
def test_norms_are_torch_norms_in_training_mode(kind):
    norm = build_norm(kind, 8, name="n").double()
    x = torch.randn(10, 8, 3, 3, generator=generator(1), dtype=torch.float64)
    got = norm(x, NormContext(torch.zeros(10, dtype=torch.long), 1))
    expected = F.group_norm(x, 8) if kind == "group" else F.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(got, expected)
