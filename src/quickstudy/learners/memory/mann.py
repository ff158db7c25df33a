"""Memory-augmented neural network (Santoro et al. 2016): an LSTM that writes to a memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError, TaskState
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_size
from quickstudy.learners.base import EmbeddingLearner
from quickstudy.learners.memory.sequence import SequenceHead
from quickstudy.learners.streams import StreamProtocol
from quickstudy.nets import Encoder, as_encoder

__all__ = ["MANN", "MANNHead", "MANNState"]

# what a slot holds before anything was written: not zero, as a cosine with zero has no direction
_EMPTY = 1e-6
# below the norm of an empty slot (6e-6 at width 40): a slot of zeros has a cosine of zero
_SMALLEST_NORM = 1e-8

# usages that differ by less count as equal; one read of 128 slots adds about 0.008 to each
_USAGE_GRID = 2.0**-13


class MANNState(NamedTuple):
    """The network between two steps, of ``B`` tasks or copies of them.

    Args:
        hidden: of the controller ``[B, H]``.
        cell: of the controller ``[B, H]``.
        memory: ``N`` slots of width ``W`` ``[B, N, W]``.
        weights: of the last read, one row for each head ``[B, R, N]``.
        reads: what was read ``[B, R * W]``.
        usage: of each slot ``[B, N]``.
    """

    hidden: Tensor
    cell: Tensor
    memory: Tensor
    weights: Tensor
    reads: Tensor
    usage: Tensor


@checked
class MANNHead(SequenceHead):
    """A neural Turing machine with least-recently-used access, Santoro et al. (2016), section 3.

    One step, with ``w`` for weights over slots, ``u`` for usage and ``g`` for a gate:

    1. The controller, an LSTM, reads embedding, late label and the last reads, and emits for each
       head a key, an add vector and a gate.
    2. The slot that was used least is set to zero.
    3. Each head adds its vector: ``w_write = g w_read(before) + (1 - g) w_least`` (equation 7),
       ``w_least`` being 1 at the ``R`` least used slots (equation 6); ``M += w_write^T a``.
    4. Each head reads: ``w_read = softmax(cos(key, M))``, ``r = w_read M`` (equations 2 to 4).
    5. ``u = decay u + sum w_read + sum w_write`` (equation 5).
    6. The logits are linear in the controller's output and the reads.

    *Differences from the paper*, all in the direction of code that reproduces its numbers: the add
    vector is not the key; usage begins at 1 in one slot, so that slots are filled in their order;
    with ``key_strength`` a head also emits by how much its cosines are multiplied, as in the neural
    Turing machine (Graves et al. 2014, equation 5): a softmax over ``N`` plain cosines is so flat
    that no slot has more than a few per cent of the weight.

    Args:
        features: width ``D`` of an embedding.
        n_way: largest number of classes.
        hidden_size: cells of the controller.
        slots: of the memory.
        width: of a slot.
        heads: reads (and writes) of a step.
        decay: of the usage, in [0, 1).
        key_strength: whether cosines are multiplied by a number that the controller emits.
        protocol: see :class:`SequenceHead`.

    Raises:
        ConfigError: if a number is out of range, there are more heads than slots, or the protocol
            is unknown.

    Example::

        head = MANNHead(64, n_way=5)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        state["memory"]  # [1, 128, 40]
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    def __init__(
        self,
        features: int,
        *,
        n_way: int,
        hidden_size: int = 200,
        slots: int = 128,
        width: int = 40,
        heads: int = 4,
        decay: float = 0.95,
        key_strength: bool = False,
        protocol: StreamProtocol = "stream",
    ) -> None:
        super().__init__(features, n_way=n_way, protocol=protocol)
        check_size(hidden_size=hidden_size, slots=slots, width=width, heads=heads)
        if heads > slots:
            raise ConfigError(
                f"heads={heads} write to as many least used slots, and there are slots={slots}. "
                "Lower heads or raise slots."
            )
        if not 0 <= decay < 1:
            raise ConfigError(f"decay must lie in [0, 1); got {decay}.")
        self.hidden_size, self.slots, self.width = hidden_size, slots, width
        self.heads, self.decay, self.key_strength = heads, decay, key_strength
        # inputs that are known beforehand, and those that a step makes
        self.from_inputs = nn.Linear(features + n_way, 4 * hidden_size)
        self.from_state = nn.Linear(heads * width + hidden_size, 4 * hidden_size, bias=False)
        emitted = 2 * width + 1 + int(key_strength)  # key, add vector, gate, strength
        self.interface = nn.Linear(hidden_size, heads * emitted)
        self.out = nn.Linear(hidden_size + heads * width, n_way)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of the network's state, without the task axis."""
        return {
            "hidden": (self.hidden_size,),
            "cell": (self.hidden_size,),
            "memory": (self.slots, self.width),
            "weights": (self.heads, self.slots),
            "reads": (self.heads * self.width,),
            "usage": (self.slots,),
        }

    def start(self, like: Tensor) -> MANNState:
        """Return the state before the first step, a copy for each row of ``like`` ``[B, ...]``."""
        made = {name: like.new_zeros(len(like), *size) for name, size in self.shapes.items()}
        made["memory"] += _EMPTY
        made["usage"][:, 0] = 1  # one-hot: the other slots are filled in their order
        made["weights"][:, :, 0] = 1
        return MANNState(**made)

    def read(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, TaskState]:
        """Return the logits of all steps and the state after each task's last one."""
        state, outputs = self.start(inputs), []
        whole = bool(mask.all())
        # unbound at once: the gradient of each single step would be as large as that of all
        for t, known in enumerate(self.from_inputs(inputs).unbind(1)):  # [T, 4H] each
            after = self.step(state, known)
            outputs.append(torch.cat([after.hidden, after.reads], 1))
            state = after if whole else _where(mask[:, t], after, state)
        return self.out(torch.stack(outputs, 1)), state._asdict()

    def answer(self, state: TaskState, inputs: Tensor) -> Tensor:
        """Return the logits ``[B, n_way]`` of one more step from ``B`` states."""
        after = self.step(MANNState(**state), self.from_inputs(inputs))
        return torch.as_tensor(self.out(torch.cat([after.hidden, after.reads], 1)))

    def step(self, state: MANNState, known: Tensor) -> MANNState:
        """Return the state one step later.

        Args:
            state: of ``B`` tasks.
            known: what the inputs add to the controller's gates ``[B, 4H]``.
        """
        gates = known + self.from_state(torch.cat([state.reads, state.hidden], 1))
        opened, new = gates.split((3 * self.hidden_size, self.hidden_size), 1)
        inwards, forget, outwards = opened.sigmoid().chunk(3, 1)
        cell = forget * state.cell + inwards * new.tanh()
        hidden = outwards * cell.tanh()

        keys, adds, gate, strength = self._emitted(hidden)
        least, emptied = self._least_used(state.usage)
        writes = torch.lerp(least[:, None].expand_as(state.weights), state.weights, gate)
        memory = torch.baddbmm(state.memory * emptied[..., None], writes.transpose(1, 2), adds)

        scores = _cosines(keys, memory)  # [B, R, N]
        weights = (scores if strength is None else scores * strength).softmax(2)
        reads = (weights @ memory).flatten(1)
        with torch.no_grad():  # it only orders the slots
            usage = self.decay * state.usage + (weights + writes).sum(1)
        return MANNState(hidden, cell, memory, weights, reads, usage)

    def _emitted(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return keys and add vectors ``[B, R, W]``, gates ``[B, R, 1]`` and the strengths of the
        keys ``[B, R, 1]``."""
        emitted = self.interface(hidden).unflatten(1, (self.heads, -1))
        vectors, gate, *rest = emitted.split((2 * self.width, *(1,) * (1 + self.key_strength)), 2)
        keys, adds = vectors.tanh().chunk(2, 2)
        # at least 1, as without it
        strength = 1 + F.softplus(rest[0]) if rest else None
        return keys, adds, gate.sigmoid(), strength

    def _least_used(self, usage: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1 at the ``R`` least used slots and 0 elsewhere ``[B, N]``, and 0 at the least
        used one and 1 elsewhere."""
        # slots that were never written are read alike, up to rounding: on a grid they are equal,
        # and a stable sort takes them in their order, whatever the batch and the machine
        order = (usage / _USAGE_GRID).round().argsort(dim=1, stable=True)
        least = torch.zeros_like(usage).scatter_(1, order[:, : self.heads], 1)
        return least, torch.ones_like(usage).scatter_(1, order[:, :1], 0)


def _cosines(keys: Tensor, memory: Tensor) -> Tensor:
    """Return the cosines of keys and slots, ``[B, R, W]`` and ``[B, N, W] -> [B, R, N]``."""
    key_norm = torch.linalg.vector_norm(keys, dim=2) + _SMALLEST_NORM  # [B, R]
    slot_norm = torch.linalg.vector_norm(memory, dim=2) + _SMALLEST_NORM  # [B, N]
    norms = key_norm[..., None] * slot_norm[:, None]
    return torch.as_tensor(keys @ memory.transpose(1, 2) / norms)


def _where(chosen: Tensor, one: MANNState, other: MANNState) -> MANNState:
    """Return one state for the tasks that are chosen ``[B]``, the other for all others."""
    pairs = zip(one, other, strict=True)
    return MANNState(*(torch.where(chosen.view(-1, *(1,) * (a.ndim - 1)), a, b) for a, b in pairs))


@checked
class MANN(EmbeddingLearner):
    """An encoder with a memory-augmented network that reads its embeddings and late labels.

    Santoro et al. (2016), "Meta-Learning with Memory-Augmented Neural Networks".

    Args:
        encoder: inputs to embeddings; the paper's is the identity on pixels,
            :class:`~quickstudy.nets.Identity`.
        n_way: largest number of classes of a task.
        hidden_size: cells of the controller.
        slots: of the memory.
        width: of a slot.
        heads: reads (and writes) of a step.
        decay: of the usage, in [0, 1).
        key_strength: see :class:`~quickstudy.learners.memory.MANNHead`.
        protocol: what meta-training minimises: ``"stream"`` or ``"episode"``.

    Raises:
        ConfigError: if a setting is out of range.

    Example::

        learner = MANN(Identity((1, 28, 28)), n_way=5, slots=32)
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
        slots: int = 128,
        width: int = 40,
        heads: int = 4,
        decay: float = 0.95,
        key_strength: bool = False,
        protocol: StreamProtocol = "stream",
    ) -> None:
        encoder = as_encoder(encoder)
        head = MANNHead(
            encoder.out_features,
            n_way=n_way,
            hidden_size=hidden_size,
            slots=slots,
            width=width,
            heads=heads,
            decay=decay,
            key_strength=key_strength,
            protocol=protocol,
        )
        super().__init__(encoder, head)
