"""The in-context head as a head of tasks: which weights it has, files, faults, graphs."""

from pathlib import Path

import onnxruntime
import pytest
import torch

from quickstudy import fitting
from quickstudy.core import CheckpointError, ConfigError, generator
from quickstudy.estimators import FewShotClassifier
from quickstudy.fitting.heads import build_head
from quickstudy.fitting.incontext import load_incontext, save_incontext, shipped_incontext
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.task import fit_task
from quickstudy.learners.heads import InContextHead

DIM = 16


def clouds(classes=4, shots=5, seed=0):
    y = torch.arange(classes).repeat_interleave(shots)
    centres = 2 * torch.randn(classes, DIM, generator=generator(1))
    return centres[y] + torch.randn(len(y), DIM, generator=generator(seed)), y


@pytest.mark.parametrize("name", ["text", "image", "characters"])
def test_each_shipped_encoder_has_a_head_of_its_own(name):
    prior = TaskPrior.load(Path(fitting.__file__).parent / "priors" / name)
    own = shipped_incontext(prior.about["fingerprint"])
    assert (own is shipped_incontext(None)) == (name == "image")
    assert prior.head("incontext", ways=5, shots=1).head is own
    assert not own.training
    assert not any(p.requires_grad for p in own.parameters())


def test_other_encoders_get_the_head_of_images():
    assert shipped_incontext("no such fingerprint") is shipped_incontext(None)
    assert shipped_incontext(None).features is None  # it takes embeddings of every width


@pytest.mark.parametrize("shots", [1, 5])
def test_a_task_is_learned_and_probabilities_are_its_own(shots):
    (z, y), (q, answers) = clouds(shots=shots), clouds(shots=30, seed=7)
    task = fit_task(TaskPrior.plain(DIM), z, y, n_way=4, head="incontext")
    p = task.proba(q)
    assert float((p.argmax(1) == answers).float().mean()) > 0.9
    # trained by cross-entropy, so its logits need no temperature where none can be measured
    assert shots > 1 or task.temperature == 1.0


def test_columns_of_a_table_are_refused():
    with pytest.raises(ConfigError, match="columns"):
        build_head("incontext", {}, dim=3, centre_prior=0.0, columns=True)


def test_a_task_file_answers_as_before(tmp_path):
    (z, y), (q, _) = clouds(), clouds(seed=7)
    clf = FewShotClassifier("array", head="incontext").fit(z.numpy(), y.numpy())
    clf.save(tmp_path / "t.task")
    again = FewShotClassifier.load(tmp_path / "t.task")
    torch.testing.assert_close(
        torch.from_numpy(again.predict_proba(q.numpy())),
        torch.from_numpy(clf.predict_proba(q.numpy())),
    )


def test_weights_survive_a_file_in_half_precision(tmp_path):
    head = InContextHead(width=8, layers=1, heads=2, dropout=0.1)
    save_incontext(tmp_path / "h.safetensors", head, {"fingerprint": "f"})
    read, about = load_incontext(tmp_path / "h.safetensors")
    assert about == {"fingerprint": "f"}
    for name, value in head.state_dict().items():
        torch.testing.assert_close(read.state_dict()[name], value.half().float())


def test_weights_of_another_version_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("quickstudy.fitting.incontext._FORMAT", 2)
    save_incontext(tmp_path / "h.safetensors", InContextHead(width=8), {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 2"):
        load_incontext(tmp_path / "h.safetensors")


@pytest.mark.parametrize("learns", [False, True])
def test_a_graph_answers_as_the_task(tmp_path, learns):
    (z, y), (q, _) = clouds(), clouds(seed=7)
    clf = FewShotClassifier("array", head="incontext").fit(z.numpy(), y.numpy())
    path = tmp_path / "t.onnx"
    clf.export_onnx(path, support_as_input=learns)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    task = {"support": z.numpy(), "membership": torch.eye(4)[y].numpy()} if learns else {}
    for n in (1, 20):
        (got,) = session.run(["probabilities"], {"query": q[:n].numpy()} | task)
        torch.testing.assert_close(
            torch.from_numpy(got),
            torch.from_numpy(clf.predict_proba(q[:n].numpy())).float(),
            rtol=1e-4,
            atol=1e-5,
        )
