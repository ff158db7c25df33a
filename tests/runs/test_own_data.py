"""Training and judging on data of one's own: folders, tables, arrays, and which classes are new."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from quickstudy.cli import main
from quickstudy.comparing import compare_runs
from quickstudy.comparing.tasklists import task_lists
from quickstudy.core import CheckpointError, ConfigError, DataError, EpisodeSpec
from quickstudy.recipes import get_recipe, override
from quickstudy.runs import check, judge, load_run, train_recipe
from quickstudy.tasks import Pool, PoolSource
from quickstudy.tasks.own import draw_parts, read_own

TINY = ["steps=2", "train.n_way=3", "train.n_query=2", "validation.n_way=2", "every=2"]
TINY += ["validation.n_query=2", "validation.episodes=4", "watch_episodes=2", "precision=float32"]
TINY += ["channels=8"]
CLASSES, EACH, WIDTH = 12, 6, 5
LABELS = np.repeat([f"kind {c:02}" for c in range(CLASSES)], EACH)
PART = np.where(LABELS < "kind 06", "Training", np.where(LABELS < "kind 09", "dev", "test"))


def vectors() -> np.ndarray:
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLASSES, WIDTH)).repeat(EACH, 0)
    return (centres + 0.1 * random.normal(size=centres.shape)).astype(np.float32)


def pictures(root: Path, labels: np.ndarray = LABELS, parts: np.ndarray | None = None) -> Path:
    """Write noisy pictures of different sizes, each class of its own colour."""
    random = np.random.default_rng(1)
    for row, label in enumerate(labels):
        folder = root / ("" if parts is None else parts[row]) / label
        folder.mkdir(parents=True, exist_ok=True)
        height, width = random.integers(12, 40, 2)
        colour = np.random.default_rng(int(label.split()[1])).integers(0, 255, 3)
        pixels = np.clip(colour + random.integers(-30, 30, (height, width, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{row}.png")
    return root


def write(form: str, folder: Path) -> tuple[Path, str, list[str]]:
    """Return the path of the same kind of data in one of its forms, a recipe, and settings."""
    x, split = vectors(), "-split" in form
    path = folder / form
    if form.startswith("photos"):
        parts = np.where(PART == "Training", "train", np.where(PART == "dev", "val", "test"))
        return pictures(path, parts=parts if split else None), "cifar-fs-protonet", []
    columns = {"split": PART} if split else {}
    if form.startswith("embeddings"):
        lists = pa.array(list(x), pa.list_(pa.float32()))
        pq.write_table(pa.table({"vector": lists, "label": LABELS, **columns}), path)
    elif form.startswith("images"):
        files = pictures(folder / "files")
        found = {p.name: p.read_bytes() for p in files.rglob("*.png")}
        structs = [{"bytes": found[f"{row}.png"], "path": None} for row in range(len(LABELS))]
        pq.write_table(pa.table({"image": structs, "label": LABELS, **columns}), path)
        return path, "cifar-fs-protonet", []
    elif form.endswith(".csv"):
        header = [*(f"f{i}" for i in range(WIDTH)), "species", *columns]
        rows = [
            [*map(str, x[i]), LABELS[i], *(values[i] for values in columns.values())]
            for i in range(len(x))
        ]
        path.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
        return path, "vectors-protonet", ["data.files.label=species"]
    else:
        np.savez(path, X=x, y=LABELS, **columns)
    return path, "vectors-protonet", []


FORMS = ["photos", "photos-split", "embeddings.parquet", "embeddings-split.parquet"]
FORMS += ["images-split.parquet", "table.csv", "table-split.csv", "arrays.npz", "arrays-split.npz"]


@pytest.mark.parametrize("form", FORMS)
def test_one_reader_and_the_same_new_classes_everywhere(form, tmp_path):
    path, recipe, settings = write(form, tmp_path)
    said: list[str] = []
    out = tmp_path / "run"
    trained = train_recipe(recipe, [*TINY, *settings], data=path, out=out, say=said.append)
    parts = load_run(out).recipe.data.files.parts
    together = [name for names in parts.values() for name in names]
    assert sorted(together) == sorted(set(LABELS))  # each class is in one part, and in one only
    assert len(together) == len(set(together))
    if "split" in form:
        assert [len(parts[part]) for part in ("train", "val", "test")] == [6, 3, 3]
        assert any("as the data names them" in line for line in said)
    judged = judge(out, path, n_way=2, n_query=2, episodes=4)
    assert judged.facts["classes"] == len(parts["test"])
    assert not judged.facts["trained_on"]
    for seen in ("train", "val", "all"):
        assert judge(out, path, n_way=2, n_query=2, episodes=2, split=seen).facts["trained_on"]
    spec = EpisodeSpec(2, 1, 2)
    found, _ = task_lists([trained.recipe.data], [str(path)], [spec], episodes=2, seed=0)
    assert {one.split: set(one.classes) for one in found} == {
        "trained": set(parts["train"]),
        "novel": set(parts["test"]),
    }
    report = check(out, episodes=4)
    assert not [f for f in report.findings if f.check == "shared-classes"], report.text()
    assert str(path) in trained.text()


def test_a_comparison_takes_data_of_ones_own(tmp_path):
    path, recipe, settings = write("table.csv", tmp_path)
    out = train_recipe(recipe, [*TINY, *settings], data=path, out=tmp_path / "run").folder
    compared = compare_runs(
        [out], [str(path)], n_way=2, n_query=2, episodes=2, workers=1, baselines=["neighbour"]
    )
    assert len(compared.comparison.cells) == 4


def test_moved_data_is_known_again_by_its_contents(tmp_path):
    path, recipe, _ = write("arrays.npz", tmp_path)
    out = train_recipe(recipe, TINY, data=path, out=tmp_path / "run").folder
    moved = path.rename(tmp_path / "elsewhere.npz")
    parts = load_run(out).recipe.data.files.parts
    judged = judge(out, moved, n_way=2, n_query=2, episodes=2)
    assert judged.facts["classes"] == len(parts["test"])
    assert judge(out, moved, n_way=2, n_query=2, episodes=2, split="train").facts["trained_on"]


def test_arrays_and_pools_in_memory_are_written_into_the_run(tmp_path):
    x = vectors()
    first = train_recipe("vectors-protonet", TINY, data=(x, LABELS), out=tmp_path / "a")
    pool = Pool.build(torch.from_numpy(x), LABELS.tolist(), name="mine")
    second = train_recipe("vectors-protonet", TINY, data=pool, out=tmp_path / "b")
    one, other = (run.load().learner.state_dict() for run in (first, second))
    assert all((one[name] == other[name]).all() for name in one)
    again = train_recipe(None, ["train.steps=4"], out=tmp_path / "a", resume=True)
    assert again.result.steps == 4
    assert judge(tmp_path / "a", tmp_path / "a" / "data.npz", n_way=2, n_query=2, episodes=2)


def test_classes_are_drawn_by_the_seed_alone(tmp_path):
    names = [f"c{i}" for i in range(40)]
    drawn = [draw_parts({}, names, seed=seed, name="x") for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(drawn[0][part]) for part in ("train", "val", "test")] == [24, 8, 8]
    # validation is drawn from the training classes if the data names none
    named = draw_parts({"train": names[:30], "test": names[30:]}, names, seed=0, name="x")
    assert set(named["test"]) == set(names[30:])
    assert sorted(named["train"] + named["val"]) == sorted(names[:30])
    with pytest.raises(DataError, match="too few"):
        draw_parts({}, names[:5], seed=0, name="x")
    path, recipe, _ = write("arrays.npz", tmp_path)
    runs = [
        train_recipe(recipe, [*TINY, f"draw_seed={seed}"], data=path, out=tmp_path / str(seed))
        for seed in (0, 7)
    ]
    parts = [run.recipe.data.files.parts for run in runs]
    assert parts[0] != parts[1]


def test_a_class_in_two_parts_is_refused_or_divided_anew(tmp_path):
    parts = np.where(np.arange(len(LABELS)) % 2, "train", "test")
    np.savez(tmp_path / "a.npz", X=vectors(), y=LABELS, split=parts)
    with pytest.raises(DataError, match=r"'kind 00' is in .* and in .*draw=true"):
        train_recipe("vectors-protonet", TINY, data=tmp_path / "a.npz", out=tmp_path / "r")
    assert not (tmp_path / "r").exists()
    settings = [*TINY, "data.files.draw=true"]
    run = train_recipe("vectors-protonet", settings, data=tmp_path / "a.npz", out=tmp_path / "r")
    assert sorted(sum(run.recipe.data.files.parts.values(), ())) == sorted(set(LABELS))
    report = check(tmp_path / "a.npz", episodes=4)
    assert not report.clean  # the check sees the classes that are in both parts


def test_the_same_example_in_two_parts_is_told(tmp_path):
    x = vectors()
    x[-1] = x[0]
    np.savez(tmp_path / "a.npz", X=x, y=LABELS, split=PART)
    said: list[str] = []
    train_recipe(
        "vectors-protonet", TINY, data=tmp_path / "a.npz", out=tmp_path / "r", say=said.append
    )
    assert any("1 examples of the training classes" in line for line in said)


def test_what_to_set_is_said_where_the_data_is_too_small(tmp_path):
    path, recipe, _ = write("arrays.npz", tmp_path)
    with pytest.raises(ConfigError) as raised:
        train_recipe(recipe, ["train.n_query=9"], data=path, out=tmp_path / "r")
    told = str(raised.value).split("Set ")[1].split(" or less")[0].split()
    assert "train.validation.n_way=2" in told
    assert "train.n_query=5" in told
    # doing what is said is enough
    train_recipe(recipe, [*told, "steps=1"], data=path, out=tmp_path / "r")


@pytest.mark.parametrize(
    ("recipe", "form", "words"),
    [
        ("cifar-fs-protonet", "arrays.npz", "vectors-protonet"),
        ("vectors-protonet", "missing.npz", "no such file"),
        ("vectors-protonet", "loop", "leads nowhere but to itself"),
        ("vectors-protonet", "text.csv", "texts"),
        ("vectors-protonet", "damaged.npz", "arrays"),
        ("vectors-protonet", "pickled.npz", "arrays"),
        ("vectors-protonet", "gap.npz", "NaN"),
        ("vectors-protonet", "words.csv", "is no number"),
        ("vectors-protonet", "unlabelled.csv", "data.files.label"),
        ("cifar-fs-protonet", "empty", "class"),
        ("cifar-fs-protonet", "setup.cfg", "no folder of images, table"),
    ],
)
def test_what_cannot_be_read_is_named(recipe, form, words, tmp_path):
    x = vectors()
    write("arrays.npz", tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    (tmp_path / "setup.cfg").write_text("x")
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "arrays.npz").read_bytes()[:300])
    (tmp_path / "text.csv").write_text("text,label\nan old red car,a\nmy new blue hat,b\n" * 9)
    rows = [f"{i}.5,{'red' if i % 3 else 'blue'},k{i % 9}" for i in range(36)]
    (tmp_path / "words.csv").write_text("\n".join(["size,colour,label", *rows]) + "\n")
    (tmp_path / "unlabelled.csv").write_text("a,b\n1.5,2\n3,4.5\n")
    np.savez(tmp_path / "pickled.npz", X=x, y=np.array([{}] * len(x), object))
    x[3, 2] = np.nan
    np.savez(tmp_path / "gap.npz", X=x, y=LABELS)
    with pytest.raises((DataError, ConfigError), match=words):
        train_recipe(recipe, TINY, data=tmp_path / form, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_image_arrays_of_every_layout_are_the_same_pictures():
    from quickstudy.tasks.arrays import pool_from_arrays

    pixels = np.random.default_rng(0).integers(0, 255, (4, 9, 8, 3), np.uint8)
    labels = [0, 0, 1, 1]
    expected = pool_from_arrays(pixels, labels).x
    for other in (pixels.transpose(0, 3, 1, 2), pixels / 255, pixels.astype(np.int64)):
        assert (pool_from_arrays(other, labels).x == expected).all()
    assert pool_from_arrays(pixels[..., 0], labels).x.shape == (4, 1, 9, 8)
    for wrong in (pixels * 2.0, pixels - 300.0, pixels[:, 0, 0, 0], np.array(["a"] * 4)):
        with pytest.raises(DataError):
            pool_from_arrays(wrong, labels)
    for wrong in ([0, 0, 1], [0, 0, 1, None], [0.5, 0, 1, 1], [[0], [0], [1], [1]], 3):
        with pytest.raises(DataError):
            pool_from_arrays(pixels, wrong)


def test_the_parts_of_a_pool_stand_beside_its_rows(tmp_path):
    order = np.random.default_rng(2).permutation(len(LABELS))
    np.savez(tmp_path / "a.npz", X=vectors()[order], y=LABELS[order], split=PART[order])
    found = read_own(tmp_path / "a.npz")
    want = dict(zip(LABELS, PART, strict=True))
    names = {"Training": "train", "dev": "val", "test": "test"}
    for part, c in zip(found.parts, found.pool.y.tolist(), strict=True):
        assert part == names[want[found.pool.class_names[c]]]
    assert {p: pool.n_classes for p, pool in found.by_part().items()} == {
        "train": 6,
        "val": 3,
        "test": 3,
    }


def test_data_in_a_setting_keeps_augmentation_and_other_settings(tmp_path):
    path = pictures(tmp_path / "photos")
    recipe = get_recipe("cifar-fs-protonet")
    for order in (["draw_seed=3", f"data={path}"], [f"data={path}", "draw_seed=3"]):
        made = override(recipe, order)
        assert made.data.jitter == recipe.data.jitter
        assert made.data.files.draw_seed == 3
        assert made.data.name == str(path)
    assert override(made, ["data=omniglot"]).data.files is None
    assert override(recipe, ["data=miniimagenet"]).data.name == "miniimagenet"
    with pytest.raises(ConfigError, match="named data set"):
        override(recipe, ["draw_seed=3"])


def test_the_commands_take_a_path(tmp_path, capsys):
    path, recipe, _ = write("embeddings.parquet", tmp_path)
    words = [word for setting in TINY for word in ("-s", setting)]
    out = str(tmp_path / "run")
    for command in (
        ["train", recipe, "--data", str(path), "--out", out, *words],
        ["evaluate", out, "--data", str(path), "--n-way", "2", "--n-query", "2", "--episodes", "4"],
    ):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--json"])
        assert not stop.value.code, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["protocol"]["split"] == "test"
    with pytest.raises(SystemExit) as stop:
        main(["train", recipe, "--data", str(tmp_path / "nothing.csv"), "--out", out + "2"])
    assert stop.value.code == 1
    assert "no such file" in capsys.readouterr().err


def test_photos_are_no_place_for_a_run(tmp_path):
    path = pictures(tmp_path / "photos")
    before = sorted(path.rglob("*"))
    with pytest.raises(ConfigError, match="other things"):
        train_recipe("cifar-fs-protonet", TINY, data=path, out=path)
    assert sorted(path.rglob("*")) == before


def test_a_resumed_run_keeps_its_data(tmp_path):
    path, recipe, _ = write("arrays.npz", tmp_path)
    out = train_recipe(recipe, TINY, data=path, out=tmp_path / "run").folder
    with pytest.raises(CheckpointError, match="must not change its data"):
        train_recipe(recipe, data=tmp_path / "other.npz", out=out, resume=True)
    x = vectors()
    x[0] += 1
    np.savez(path, X=x, y=LABELS)
    with pytest.raises(CheckpointError, match="other settings or data"):
        train_recipe(recipe, ["train.steps=4"], out=out, resume=True)


def test_columns_of_every_scale_are_learned_alike(tmp_path):
    x = vectors()
    scores = []
    for name, scale in (("a", np.ones(WIDTH)), ("b", 10.0 ** np.arange(-3, WIDTH - 3))):
        np.savez(tmp_path / f"{name}.npz", X=x * scale, y=LABELS)
        settings = [*TINY, "steps=4", "standardise=true"]
        run = train_recipe(
            "vectors-protonet", settings, data=tmp_path / f"{name}.npz", out=tmp_path / name
        )
        source = PoolSource(read_own(tmp_path / f"{name}.npz").pool)
        episode = source.episodes(EpisodeSpec(5, 1, 3), [0], seed=0)
        learner = run.load().learner
        scores.append(learner.predict(learner.adapt(episode.support, n_way=5), episode.query.x))
    np.testing.assert_allclose(scores[0].detach(), scores[1].detach(), rtol=2e-3, atol=2e-3)
