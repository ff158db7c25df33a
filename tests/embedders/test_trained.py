"""Our own encoders: a run folder embeds as its learner does, and the shipped file is one."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from quickstudy.core import CheckpointError, ConfigError, DataError
from quickstudy.embedders import get_embedder, module_embedder, trained
from quickstudy.embedders.networks import affine_warp
from quickstudy.embedders.trained import character_embedder, save_characters
from quickstudy.nets import Conv4
from quickstudy.recipes import (
    ANILConfig,
    EncoderConfig,
    ImageData,
    MAMLConfig,
    MatchingConfig,
    ProtoNetConfig,
    Recipe,
    SinusoidData,
    build_learner,
    encoder_of,
)
from quickstudy.runs.folder import load_run, save_recipe
from quickstudy.storage.tensors import load_tensors, save_tensors
from quickstudy.tasks.source import as_input

CPU = torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
PIXELS[:, [0, -1]] = PIXELS[:, :, [0, -1]] = 0  # a black border: ink on black already


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make_run(folder: Path, *, data="omniglot", learner=None, start=None, **encoder) -> Path:
    recipe = Recipe(
        name="tiny",
        data=SinusoidData() if data == "sinusoid" else ImageData(name=data),
        encoder=EncoderConfig(**{"channels": 8, **encoder}),
        learner=learner or ProtoNetConfig(),
        start=start,
    )
    net = build_learner(recipe.encoder, recipe.learner, seed=0, n_way=recipe.n_way)
    folder.mkdir()
    save_recipe(folder, recipe, {"training data": "a"})
    save_tensors(folder / "model.safetensors", net.state_dict(), {"step": 3, "validation": 0.9})
    return folder


def test_a_run_embeds_as_its_encoder_does(tmp_path):
    folder = make_run(tmp_path / "run")
    embedder = get_embedder(folder)
    z = embedder.embed(embedder.read(PIXELS))
    encoder = encoder_of(load_run(folder).learner)
    want, _ = encoder.encode(as_input(torch.from_numpy(PIXELS))[None, :, None])
    torch.testing.assert_close(torch.from_numpy(z), want[0].detach(), rtol=1e-5, atol=1e-5)
    assert embedder.modality == "image"
    assert embedder.dim == z.shape[1] == 8
    # ink on paper is the same drawing
    other = embedder.embed(embedder.read(255 - PIXELS))
    np.testing.assert_allclose(other, z, atol=1e-5)


def test_size_and_channels_are_the_recipe_s(tmp_path):
    folder = make_run(tmp_path / "run", data="cifar-fs", image_size=32, in_channels=3)
    embedder = get_embedder(str(folder))
    rng = np.random.default_rng(0)
    given = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((9, 70, 3), (50, 50))]
    z = embedder.embed(embedder.read(given))
    assert z.shape == (2, embedder.dim)
    assert not embedder.transform.ink


def test_cosine_learners_give_unit_embeddings(tmp_path):
    for name, learner in (
        ("a", MatchingConfig()),
        ("b", ProtoNetConfig(distance="cosine")),
    ):
        embedder = get_embedder(make_run(tmp_path / name, learner=learner))
        z = embedder.embed(embedder.read(PIXELS))
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)


def test_the_same_run_is_the_same_space_wherever_it_lies(tmp_path):
    a = get_embedder(make_run(tmp_path / "a"))
    b = get_embedder(make_run(tmp_path / "b"))
    c = get_embedder(make_run(tmp_path / "c", data="miniimagenet"))  # no ink: another transform
    assert a.fingerprint == b.fingerprint != c.fingerprint
    assert get_embedder(a.config()).fingerprint == a.fingerprint
    assert json.loads(json.dumps(a.config())) == a.config()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"norm": "support", "start": "omniglot-start"}, "its start 'omniglot-start'"),
        ({"norm": "batch", "learner": MAMLConfig()}, "norm='group'"),
        (
            {"kind": "mlp", "in_features": 1, "data": "sinusoid"},
            "learns sinusoid, not images",
        ),
    ],
)
def test_runs_without_embeddings_of_one_image_say_why(tmp_path, options, says):
    with pytest.raises(ConfigError, match=says):
        get_embedder(make_run(tmp_path / "run", **options))


def test_gradient_learners_with_group_norm_embed(tmp_path):
    folder = make_run(tmp_path / "run", norm="group", learner=ANILConfig())
    embedder = get_embedder(folder)
    assert embedder.embed(embedder.read(PIXELS)).shape == (5, 8)


def test_damaged_runs_are_named(tmp_path):
    folder = make_run(tmp_path / "run")
    model = folder / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="damaged"):
        get_embedder(folder)
    model.unlink()
    with pytest.raises(CheckpointError, match="not finished"):
        get_embedder(folder)


def test_other_weights_are_noticed_when_a_task_is_opened(tmp_path):
    folder = make_run(tmp_path / "run")
    config = get_embedder(folder).config()
    learner = load_run(folder).learner
    tensors = {name: value + 0.5 for name, value in learner.state_dict().items()}
    save_tensors(folder / "model.safetensors", tensors, {"step": 4})
    with pytest.raises(DataError, match="is not what it was"):
        get_embedder(config)


def test_copies_are_the_same(tmp_path):
    embedder = get_embedder(make_run(tmp_path / "run"))
    assert copy.deepcopy(embedder) is embedder
    other = pickle.loads(pickle.dumps(embedder))  # noqa: S301
    assert other.fingerprint == embedder.fingerprint
    np.testing.assert_array_equal(
        other.embed(other.read(PIXELS)), embedder.embed(embedder.read(PIXELS))
    )


# ---------------------------------------------------------------- characters


def test_a_run_becomes_the_shipped_file(tmp_path):
    folder, out = make_run(tmp_path / "run"), tmp_path / "characters.safetensors"
    size = save_characters(folder, out, about={"commit": "abc"})
    assert size == out.stat().st_size < 2_000_000
    shipped = character_embedder(device=CPU, path=out)
    run = get_embedder(folder)
    assert shipped.name == "characters"
    # it embeds a drawing and warped copies of it, and has a space of its own
    assert shipped.fingerprint != run.fingerprint
    views = load_tensors(out)[1]["views"]
    x = torch.from_numpy(run.inputs(PIXELS))
    copies = [x]
    for view in views:
        grid = F.affine_grid(
            affine_warp(*view).expand(5, 2, 3), [5, 1, 28, 28], align_corners=False
        )
        copies.append(F.grid_sample(x, grid, align_corners=False))
    net = run.network().net
    with torch.no_grad():
        want = torch.stack([net(copy) for copy in copies]).mean(0)
    got = shipped.embed(shipped.read(PIXELS))
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-5)
    assert get_embedder(shipped.config()).fingerprint == shipped.fingerprint


def test_a_warp_turns_scales_and_moves():
    image = torch.zeros(1, 1, 29, 29)
    image[0, 0, 14, 20:26] = 1  # a bar right of the middle

    def middle(*warp: float) -> list[float]:
        grid = F.affine_grid(affine_warp(*warp)[None], [1, 1, 29, 29], align_corners=False)
        ink = F.grid_sample(image, grid, align_corners=False)[0, 0]
        at = torch.arange(29.0)
        return [float((ink.sum(1 - axis) * at).sum() / ink.sum()) for axis in (0, 1)]

    assert middle(0, 1, 0, 0, 0) == pytest.approx([14, 22.5], abs=0.1)
    assert middle(0, 0.5, 0, 0, 0) == pytest.approx([14, 18.25], abs=0.3)
    assert middle(90, 1, 0, 0, 0)[1] == pytest.approx(14, abs=0.1)
    assert middle(0, 1, 0, 4 / 29, 0) == pytest.approx([14, 20.5], abs=0.1)
    assert middle(0, 1, 0, 0, 4 / 29) == pytest.approx([12, 22.5], abs=0.1)


def test_what_is_shipped_is_small_and_grey(tmp_path):
    wide = make_run(tmp_path / "wide", channels=256)
    with pytest.raises(ConfigError, match="narrower"):
        save_characters(wide, tmp_path / "x.safetensors", about={})
    colour = make_run(tmp_path / "colour", data="cifar-fs", in_channels=3, image_size=32)
    with pytest.raises(ConfigError, match="1 channel"):
        save_characters(colour, tmp_path / "x.safetensors", about={})


def test_a_missing_or_foreign_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="Install quickstudy again"):
        character_embedder(device=CPU, path=tmp_path / "none.safetensors")
    save_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {"what": "else"})
    with pytest.raises(CheckpointError, match="no character encoder"):
        character_embedder(device=CPU, path=tmp_path / "other.safetensors")


def test_what_the_wheel_brings_tells_characters_apart():
    """Strokes that it never saw, one example each, drawn a little differently."""
    shipped = character_embedder(device=CPU)
    about = load_tensors(Path(trained.__file__).parent / "weights/characters.safetensors")[1]
    assert about["recipe"]["data"]["train"] == "train"
    assert len(about["commit"].split()[0]) == 40
    draw = np.random.default_rng(0)
    x, y = [], []
    for c in range(6):
        points = np.random.default_rng(c).integers(15, 90, (4, 2))
        for _ in range(5):
            paper = Image.new("L", (105, 105), 255)
            moved = points + draw.normal(0, 3, points.shape)
            ImageDraw.Draw(paper).line([tuple(p) for p in moved], fill=0, width=3)
            x.append(np.asarray(paper))
            y.append(c)
    z, y = shipped.embed(shipped.read(x)), np.array(y)
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    nearest = (z @ z.T - 2 * np.eye(30)).argmax(1)
    assert (y[nearest] == y).mean() > 0.9


# ---------------------------------------------------------------- modules


def test_an_encoder_of_ours_knows_its_size():
    net = Conv4(image_size=16, channels=8)
    embedder = get_embedder(net)
    assert embedder.modality == "image"
    assert embedder.embed(embedder.read(PIXELS)).shape == (5, 8)
    with pytest.raises(ConfigError, match="depend on the support"):
        get_embedder(Conv4(image_size=16, channels=8, norm="support"))


def test_a_module_of_images_is_given_size_and_scale():
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    embedder = module_embedder(net, size=8, mean=100, std=50)
    z = embedder.embed(embedder.read([np.full((30, 20, 3), (100, 150, 200), np.uint8)]))
    np.testing.assert_allclose(z, [[0, 1, 2]], atol=1e-6)


def test_changed_weights_are_another_space():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 2)).train()
    for embedder in (module_embedder(net, size=8), get_embedder(net)):
        x = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
        items, before = embedder.read(x), embedder.fingerprint
        z = embedder.embed(items)
        with torch.no_grad():
            net[1].weight += 1
        assert embedder.fingerprint != before
        assert not np.allclose(embedder.embed(items), z)
        assert net.training


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (torch.nn.Identity(), "pooling and flattening"),
        (torch.nn.Linear(7, 2), "failed on inputs"),
    ],
)
def test_a_module_that_does_not_embed_says_so(net, says):
    with pytest.raises(DataError, match=says):
        module_embedder(net, size=8)
    one = get_embedder(net)
    with pytest.raises(DataError, match=says):
        one.embed(one.read(np.zeros((2, 3, 8), np.float32)))
    with pytest.raises(DataError, match="module_embedder"):
        one.read(["a.png"])


def test_types_and_widths_are_the_module_s():
    net = torch.nn.Linear(4, 2).double()
    one = get_embedder(net)
    z = one.embed(one.read(np.ones((3, 4), np.float32)))
    assert z.dtype == np.float32
    with pytest.raises(ConfigError, match="no file brings back"):
        get_embedder(one.config())
