"""The LSTM baseline of the memory learners: the state of the network is all its memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from quickstudy.core import TaskState
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_size
from quickstudy.learners.base import EmbeddingLearner
from quickstudy.learners.memory.sequence import SequenceHead
from quickstudy.learners.streams import StreamProtocol
from quickstudy.nets import Encoder, as_encoder

__all__ = ["LSTMHead", "LSTMLearner"]


@checked
class LSTMHead(SequenceHead):
    """An LSTM (Hochreiter and Schmidhuber 1997) that reads embeddings and late labels.

    Its hidden state is all it keeps of a task: the baseline of Santoro et al. (2016), section 4.1,
    and the learner of Hochreiter, Younger and Conwell (2001), "Learning to learn using gradient
    descent".

    Args:
        features: width ``D`` of an embedding.
        n_way: largest number of classes.
        hidden_size: cells of the LSTM.
        protocol: see :class:`SequenceHead`.

    Raises:
        ConfigError: if a number is out of range or the protocol is unknown.

    Example::

        head = LSTMHead(64, n_way=5, hidden_size=32)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        state["hidden"], state["cell"]  # [1, 32] each
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    def __init__(
        self,
        features: int,
        *,
        n_way: int,
        hidden_size: int = 200,
        protocol: StreamProtocol = "stream",
    ) -> None:
        super().__init__(features, n_way=n_way, protocol=protocol)
        check_size(hidden_size=hidden_size)
        self.lstm = nn.LSTM(features + n_way, hidden_size, batch_first=True)
        self.out = nn.Linear(hidden_size, n_way)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of the network's state, without the task axis."""
        return {"hidden": (self.lstm.hidden_size,), "cell": (self.lstm.hidden_size,)}

    def read(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, TaskState]:
        """Return the logits of all steps and the state after each task's last one."""
        if bool(mask.all()):
            outputs, (h, c) = self.lstm(inputs)
        else:
            # packed, the cell state is that after each task's own last step
            lengths = mask.sum(1).cpu()
            packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
            run, (h, c) = self.lstm(packed)
            outputs, _ = pad_packed_sequence(run, batch_first=True, total_length=inputs.shape[1])
        return self.out(outputs), {"hidden": h[0], "cell": c[0]}

    def answer(self, state: TaskState, inputs: Tensor) -> Tensor:
        """Return the logits ``[B, n_way]`` of one more step from ``B`` states."""
        before = (state["hidden"][None].contiguous(), state["cell"][None].contiguous())
        outputs, _ = self.lstm(inputs[:, None], before)
        return torch.as_tensor(self.out(outputs[:, 0]))


@checked
class LSTMLearner(EmbeddingLearner):
    """An encoder with an LSTM that reads its embeddings and late labels.

    Args:
        encoder: inputs to embeddings; the paper's is the identity on pixels,
            :class:`~quickstudy.nets.Identity`.
        n_way: largest number of classes of a task.
        hidden_size: cells of the LSTM.
        protocol: what meta-training minimises, see :class:`~quickstudy.learners.memory.
            SequenceHead`.

    Raises:
        ConfigError: if a number is out of range or the protocol is unknown.

    Example::

        learner = LSTMLearner(Identity((1, 28, 28)), n_way=5)
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        state = learner.adapt(episode.support, n_way=5)
        logits = learner.predict(state, episode.query.x)  # [1, 75, 5]
    """

    def __init__(
        self,
        encoder: Encoder | nn.Module,
        *,
        n_way: int,
        hidden_size: int = 200,
        protocol: StreamProtocol = "stream",
    ) -> None:
        encoder = as_encoder(encoder)
        head = LSTMHead(
            encoder.out_features, n_way=n_way, hidden_size=hidden_size, protocol=protocol
        )
        super().__init__(encoder, head)
