"""Graphs for other runtimes answer as the classifier does."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from quickstudy.core import CheckpointError, ConfigError
from quickstudy.estimators import FewShotClassifier, export
from quickstudy.nets import Conv4


def blobs(seed: int, classes: int = 4, each: int = 5) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), each)
    centres = np.random.default_rng(0).normal(size=(9, 12)) * 2
    x = (centres[y] + draw.normal(size=(len(y), 12))).astype(np.float32)
    return x, np.array(list("abcdefghi"))[y]


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answers: np.ndarray = session.run(["probabilities"], inputs)[0]
    return answers


def test_other_threads_may_print_while_a_graph_is_traced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    done, lines = threading.Event(), 0

    def talk() -> None:
        nonlocal lines
        while not done.wait(0.002):
            print("a line")
            lines += 1

    clf = FewShotClassifier("array", head="prototype").fit(*blobs(1))
    thread = threading.Thread(target=talk)
    thread.start()
    try:
        clf.export_onnx(tmp_path / "a.onnx")
    finally:
        done.set()
        thread.join()
    assert capsys.readouterr().out == "a line\n" * lines
    assert lines > 5


def one_hot(labels: np.ndarray) -> np.ndarray:
    _, y = np.unique(labels, return_inverse=True)
    return np.eye(y.max() + 1, dtype=np.float32)[y]


@pytest.mark.parametrize("head", export.SUPPORT_AS_INPUT)
def test_a_graph_learns_any_support_set(head: str, tmp_path: Path):
    """Of the task it was made of, and of others: fewer classes, uneven shots, padding."""
    x, y = blobs(1)
    clf = FewShotClassifier("array", head=head).fit(x, y)
    made = clf.export_onnx(tmp_path / "a.onnx")
    assert made.support
    assert made.classes is None
    query = blobs(2)[0]
    got = run(tmp_path / "a.onnx", support=x, membership=one_hot(y), query=query)
    np.testing.assert_allclose(got, clf.predict_proba(query), atol=1e-4)

    few = np.r_[0:5, 5:7, 10:11]
    other = FewShotClassifier("array", head=head).fit(x[few], y[few])
    padded = np.r_[x[few], np.full((2, 12), 7, np.float32)]
    member = np.r_[one_hot(y[few]), np.zeros((2, 3), np.float32)]
    got = run(tmp_path / "a.onnx", support=padded, membership=member, query=query[:1])
    # the graph keeps the calibration of the task that it was made of
    scores = other.decision_function(query[:1]) / clf.fitted_task.temperature
    expected = torch.from_numpy(scores).softmax(1).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("head", ["logistic", "kernel", "neighbours", "ridge"])
def test_a_graph_of_one_task(head: str, tmp_path: Path):
    x, y = blobs(1)
    clf = FewShotClassifier("array", head=head).fit(x, y)
    made = clf.export_onnx(tmp_path / "a.onnx", support_as_input=False)
    assert not made.support
    assert made.classes == list("abcd")
    query = blobs(2)[0]
    got = run(tmp_path / "a.onnx", query=query)
    np.testing.assert_allclose(got, clf.predict_proba(query), atol=1e-4)
    facts = {p.key: p.value for p in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert json.loads(facts["classes"]) == list("abcd")
    assert facts["head"] == head


def test_the_encoder_is_part_of_the_graph(tmp_path: Path):
    net = Conv4(in_channels=1, image_size=28, channels=8, norm="batch").eval()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 40, 30), dtype=np.uint8)
    labels = np.repeat(list("abc"), 4)
    clf = FewShotClassifier(net, head="prototype").fit(pixels, labels)
    made = clf.export_onnx(tmp_path / "a.onnx")
    assert made.inputs["query"] == ["Q", 1, 28, 28]
    x = clf.inputs(pixels)
    got = run(tmp_path / "a.onnx", support=x, membership=one_hot(labels), query=x[:5])
    np.testing.assert_allclose(got, clf.predict_proba(pixels[:5]), atol=1e-4)


def test_the_shipped_encoder_takes_any_number_of_drawings(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 30, 30), dtype=np.uint8)
    clf = FewShotClassifier("characters", head="prototype").fit(pixels, np.repeat(list("abc"), 3))
    clf.export_onnx(tmp_path / "a.onnx", support_as_input=False)
    x = clf.inputs(pixels)
    for n in (1, 4, 9):
        got = run(tmp_path / "a.onnx", query=x[:n])
        np.testing.assert_allclose(got, clf.predict_proba(pixels[:n]), atol=1e-4)


def test_what_cannot_be_exported_says_so(tmp_path: Path):
    x, y = blobs(1)
    clf = FewShotClassifier("array", head="logistic").fit(x, y)
    with pytest.raises(ConfigError, match="step by step"):
        clf.export_onnx(tmp_path / "a.onnx", support_as_input=True)
    with pytest.raises(ConfigError, match="gradient"):
        FewShotClassifier("array", head="gradient").fit(x, y).export_onnx(tmp_path / "a.onnx")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match="file"):
        clf.export_onnx(tmp_path / "file" / "a.onnx", support_as_input=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * float(x.sum()) if bool(x.mean() > 0) else x

    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.ones(len(x), 1)

    fixed = FewShotClassifier(Fixed(), head="prototype").fit(x, y)
    with pytest.raises(ConfigError, match=r"at a time|cannot be traced"):
        fixed.export_onnx(tmp_path / "a.onnx", support_as_input=False)

    odd = FewShotClassifier(Odd(), head="prototype").fit(x, y)
    with pytest.raises(ConfigError, match="cannot be traced"):
        odd.export_onnx(tmp_path / "a.onnx")
