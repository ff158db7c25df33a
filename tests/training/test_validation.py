"""What is followed during training: it is told, it may choose, and it changes nothing else."""

import json

import pytest
import torch
from torch import nn

from quickstudy.core import CheckpointError, ConfigError, EpisodeSpec, ProtocolError
from quickstudy.evaluation import evaluate
from quickstudy.learners import PrototypicalNetwork
from quickstudy.nets import MLP
from quickstudy.recipes import RECIPES, build_learner, override, sources
from quickstudy.storage.tensors import load_tensors, save_tensors
from quickstudy.tasks import AffineJitter, AugmentedSource, PoolSource
from quickstudy.testing import gaussian_pool
from quickstudy.training import TrainConfig, ValidationConfig, train
from quickstudy.training.fingerprint import changes
from quickstudy.training.logs import read_log
from quickstudy.training.overfitting import NOVEL, TRAINING, find_overfitting

VALIDATION = ValidationConfig(n_way=4, n_query=3, episodes=6, every=4, watch_episodes=5)
CONFIG = TrainConfig(
    steps=12,
    n_way=4,
    n_query=3,
    outer_lr=1e-2,
    warmup=2,
    checkpoint_every=5,
    log_every=2,
    validation=VALIDATION,
)


def learner(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PrototypicalNetwork(MLP((6,), (8, 5), activation=nn.Tanh))


def source(name="gaussian", split="train", classes=8):
    return PoolSource(gaussian_pool(classes, 10, (6,), split=split, seed=len(name + split)))


def domain(name="far", classes=3):
    return PoolSource(gaussian_pool(classes, 10, (6,), name=name, split="all", seed=classes))


def config(**validation):
    return CONFIG.model_copy(
        update={"validation": ValidationConfig(**(VALIDATION.model_dump() | validation))}
    )


class Faulty:
    name, split = "gaussian", "train"

    def __init__(self, at):
        self.inner, self.at = source(), at

    def episodes(self, spec, task_ids, *, seed):
        if task_ids[0] == self.at and spec == CONFIG.spec:
            raise OSError("the machine went away")
        return self.inner.episodes(spec, task_ids, seed=seed)


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return all(torch.equal(a[n], b[n]) for n in a)


# ---------------------------------------------------------------------- what is told


def test_each_list_is_scored_on_the_same_episodes_at_every_step(tmp_path):
    model = learner()
    result = train(
        model,
        source(),
        config(domains=("far",)),
        validation=source(split="val"),
        domains={"far": domain()},
        out=tmp_path,
        tensorboard=True,
    )
    assert result.curve is not None
    assert result.curve.steps == (4, 8, 12)
    shapes = {name: scores.shape for name, scores in result.curve.scores.items()}
    assert shapes == {TRAINING: (3, 5), NOVEL: (3, 6), "far": (3, 5)}
    lines = [line for line in result.log if "validation" in line]
    for at, line in enumerate(lines):
        for key, name in (("training", TRAINING), ("validation", NOVEL), ("domain/far", "far")):
            assert line[key] == pytest.approx(result.curve.scores[name][at].mean(), abs=1e-6)
            assert line[f"{key}_ci95"] >= 0
    # the kept weights, scored by hand on the same lists; the domain has three classes only
    at = result.curve.steps.index(result.best_step)
    for name, data, ways in ((TRAINING, source(), 4), ("far", domain(), 3)):
        report = evaluate(model, data, EpisodeSpec(ways, 1, 3), episodes=5, seed=CONFIG.seed)
        assert report.scores == pytest.approx(result.curve.scores[name][at], abs=1e-6)
    kept = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in kept] == [4, 8, 12]
    assert kept[-1]["scores"]["far"] == result.curve.scores["far"][-1].tolist()
    assert list((tmp_path / "tensorboard").iterdir())


def test_training_classes_are_followed_without_their_augmentation():
    pool = gaussian_pool(8, 10, (1, 8, 8), split="train")
    val = PoolSource(gaussian_pool(8, 10, (1, 8, 8), split="val", seed=1))
    curves = []
    for jitter in (AffineJitter(degrees=0), AffineJitter(degrees=90, shift=0.4)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = PrototypicalNetwork(MLP((1, 8, 8), (5,)))
        c = CONFIG.model_copy(update={"outer_lr": 1e-12})
        data = AugmentedSource(PoolSource(pool), jitter)
        curves.append(train(model, data, c, validation=val).curve.scores[TRAINING])
    assert (curves[0] == curves[1]).all()


def test_training_classes_that_cannot_be_followed_are_said_and_left_out(capsys):
    few = PoolSource(gaussian_pool(4, 5, (6,), split="train"))
    c = CONFIG.model_copy(
        update={"validation": ValidationConfig(n_way=4, n_query=8, episodes=4, every=6)}
    )
    result = train(learner(), few, c, validation=source(split="val"), progress=True)
    assert "training classes are not followed: " in capsys.readouterr().err
    assert result.curve is None
    assert result.best_validation is not None


# ---------------------------------------------------------------------- it changes nothing


def test_following_changes_no_bit_of_the_training(tmp_path):
    models = [learner(), learner()]
    for model, c, more in (
        (models[0], config(watch_episodes=0), {}),
        (models[1], config(domains=("far",)), {"far": domain()}),
    ):
        out = tmp_path / str(len(more))
        train(model, source(), c, validation=source(split="val"), domains=more, out=out)
    assert same_weights(*models)
    a, b = (load_tensors(tmp_path / n / "checkpoint.safetensors")[0] for n in "01")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[n], b[n]) for n in a)
    plain, followed = (read_log(tmp_path / n / "log.jsonl") for n in "01")
    for one, other in zip(plain, followed, strict=True):
        one.pop("episodes_per_second", None)
        assert one.items() <= other.items()
    assert set(plain[-1]) == {"step", "validation", "validation_ci95"}
    assert not (tmp_path / "0" / "curve.jsonl").exists()


@pytest.mark.parametrize("at", [5, 9, 11])
def test_a_resumed_run_has_the_curve_of_the_unbroken_one(tmp_path, at):
    c, val, more = config(domains=("far",)), source(split="val"), {"far": domain()}
    whole, broken, resumed = learner(), learner(), learner(seed=7)
    straight = train(whole, source(), c, validation=val, domains=more, out=tmp_path / "a")
    with pytest.raises(OSError, match="went away"):
        train(broken, Faulty(at), c, validation=val, domains=more, out=tmp_path / "b")
    again = train(
        resumed, source(), c, validation=val, domains=more, out=tmp_path / "b", resume=True
    )
    assert same_weights(whole, resumed)
    assert again.best_step == straight.best_step
    files = [(tmp_path / run / "curve.jsonl").read_text() for run in "ab"]
    assert files[0] == files[1]
    assert find_overfitting(again.curve) == find_overfitting(straight.curve)


def test_a_run_from_before_there_was_a_curve_can_be_resumed(tmp_path):
    val = source(split="val")
    straight = learner()
    c = CONFIG.model_copy(
        update={
            "validation": ValidationConfig(**{**VALIDATION.model_dump(), "watch_episodes": 100})
        }
    )
    train(straight, source(), c, validation=val, out=tmp_path / "a")
    with pytest.raises(OSError, match="went away"):
        train(learner(), Faulty(9), c, validation=val, out=tmp_path / "b")
    path = tmp_path / "b" / "checkpoint.safetensors"
    tensors, meta = load_tensors(path)
    young = {n for n in meta["fingerprint"] if n.endswith(("domains", "choose_by", "episodes"))}
    assert len(young) == 4
    for name in young - {"train.validation.episodes"}:
        del meta["fingerprint"][name]
    save_tensors(path, tensors, meta)
    (tmp_path / "b" / "curve.jsonl").unlink()
    resumed = learner(seed=3)
    result = train(resumed, source(), c, validation=val, out=tmp_path / "b", resume=True)
    assert same_weights(straight, resumed)
    assert result.curve is not None
    assert result.curve.steps == (8, 12)


def test_other_lists_than_those_of_the_run_are_refused(tmp_path):
    val = source(split="val")
    train(learner(), source(), CONFIG, validation=val, out=tmp_path)
    with pytest.raises(CheckpointError, match=r"train\.validation\.domains: \[\] in the run"):
        train(
            learner(),
            source(),
            config(domains=("far",)),
            validation=val,
            domains={"far": domain()},
            out=tmp_path,
            resume=True,
        )
    assert "recipe.data.classes" in changes({}, {"recipe.data.classes": "20"})


# ---------------------------------------------------------------------- a domain chooses


def test_the_domain_that_chooses_decides_which_weights_are_kept(tmp_path):
    # the first three numbers tell the classes of training and validation, the others the domain's
    def pool(told, name, split, seed):
        base = gaussian_pool(8, 12, (6,), separation=3.0, name=name, split=split, seed=seed)
        x = base.x.clone()
        noise = gaussian_pool(8, 12, (6,), separation=0.0, seed=seed + 50).x
        mute = [i for i in range(6) if i not in told]
        x[:, mute] = 3 * noise[:, mute]
        return PoolSource(base.with_x(x))

    train_on = pool((0, 1, 2), "near", "train", 0)
    val = pool((0, 1, 2), "near", "val", 1)
    far = pool((3, 4, 5), "far", "all", 2)
    results, models = {}, {}
    for judge in (NOVEL, "far"):
        v = ValidationConfig(
            n_way=4, n_query=5, episodes=60, every=4, domains=("far",), choose_by=judge
        )
        c = CONFIG.model_copy(update={"steps": 60, "ema_decay": 0.0, "validation": v})
        models[judge] = learner()
        out = tmp_path / judge.replace(" ", "")
        results[judge] = train(
            models[judge], train_on, c, validation=val, domains={"far": far}, out=out
        )
    novel, other = results[NOVEL], results["far"]
    assert other.best_step < novel.best_step
    curve = other.curve
    assert curve.steps[curve.scores["far"].mean(1).argmax()] == other.best_step
    assert curve.scores["far"].shape[1] == 60  # what chooses is scored on all episodes
    assert novel.curve.scores["far"].shape[1] == 100
    assert other.best_validation == pytest.approx(curve.scores["far"].mean(1).max(), abs=1e-6)
    report = evaluate(models["far"], far, EpisodeSpec(4, 1, 5), episodes=60, seed=0)
    assert report.mean == pytest.approx(other.best_validation)
    assert not same_weights(models[NOVEL], models["far"])


# ---------------------------------------------------------------------- what is refused


def test_the_trained_data_set_is_no_domain():
    c, val = config(domains=("far",)), source(split="val")
    for split in ("test", "val", "all"):
        own = PoolSource(gaussian_pool(4, 10, (6,), split=split))
        with pytest.raises(ProtocolError, match="which is trained on"):
            train(learner(), source(), c, validation=val, domains={"far": own})


def test_names_and_sources_belong_together():
    val = source(split="val")
    with pytest.raises(ConfigError, match=r"names \['far'\], and the sources given are \[\]"):
        train(learner(), source(), config(domains=("far",)), validation=val)
    with pytest.raises(ConfigError, match="beside validation classes"):
        train(learner(), source(), config(domains=("far",)), domains={"far": domain()})


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"domains": ("a", "a")}, "different names"),
        ({"domains": (NOVEL,)}, "different names"),
        ({"choose_by": "mnist"}, "choose_by must be 'novel classes'; got 'mnist'"),
        ({"choose_by": TRAINING}, "choose_by must be"),
        ({"watch_episodes": 1}, "0 or at least 2"),
        ({"domains": ("a",), "watch_episodes": 0}, "and that is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        ValidationConfig(**bad)


def test_a_list_is_given_on_the_command_line_with_commas_or_as_json():
    recipe = RECIPES["omniglot-few"]
    for text in ("domains=mnist,quickdraw", 'validation.domains=["mnist", "quickdraw"]'):
        changed = override(recipe, [text, "choose_by=mnist"])
        assert changed.train.validation.domains == ("mnist", "quickdraw")
        assert changed.train.validation.choose_by == "mnist"
    assert override(recipe, ["domains="]).train.validation.domains == ()
    with pytest.raises(ConfigError, match=r"train\.validation: choose_by must be"):
        override(recipe, ["choose_by=mnist"])


# ---------------------------------------------------------------------- the recipe that overfits


def trained(recipe):
    train_on, val, _ = sources(recipe)
    model = build_learner(recipe.encoder, recipe.learner, seed=0)
    return train(model, train_on, recipe.train, validation=val)


def test_the_recipe_that_overfits_is_caught_and_more_classes_heal_it():
    recipe = override(RECIPES["glyphs-few"], ["validation.episodes=200", "channels=128"])
    assert sources(recipe)[0].pool.n_classes == 20
    few = trained(recipe)
    (found,) = find_overfitting(few.curve)
    assert (found.novel, found.kind) == (NOVEL, "falls")
    assert few.best_step <= found.since
    assert few.curve.scores[TRAINING][-1].mean() > 0.99
    healthy = trained(override(recipe, ["classes=null", "rotations=true", "outer_lr=0.001"]))
    assert find_overfitting(healthy.curve) == ()
    assert healthy.best_validation > few.best_validation


def test_which_classes_are_few_depends_on_the_seed_alone():
    pools = [
        sources(override(RECIPES["glyphs-few"], [f"train.seed={s}"]))[0].pool.class_names
        for s in (0, 0, 1)
    ]
    assert pools[0] == pools[1] != pools[2]
    with pytest.raises(ConfigError, match=r"data\.classes is 99999"):
        sources(override(RECIPES["glyphs-few"], ["classes=99999"]))
