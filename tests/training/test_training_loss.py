"""One training loss: what a learner overrides is what is trained, and what is certified."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from quickstudy.core import ConfigError, EpisodeSpec
from quickstudy.learners import EmbeddingLearner, PrototypicalNetwork
from quickstudy.learners.metric import PrototypeHead
from quickstudy.nets import MLP
from quickstudy.tasks import PoolSource
from quickstudy.testing import check_meta_gradient, gaussian_pool
from quickstudy.training import TrainConfig
from quickstudy.training.step import batch_loss, meta_gradient

CONFIG = TrainConfig(n_way=3, k_shot=1, n_query=2, roles="every")
EPISODE = PoolSource(gaussian_pool(6, 8, (4,))).episodes(EpisodeSpec(3, 1, 2), range(4), seed=0)


def net() -> MLP:
    torch.manual_seed(0)
    return MLP((4,), (8, 5), activation=nn.Tanh)


class WithAuxiliaryLoss(PrototypicalNetwork):
    """Also keeps embeddings short, with a weight that only the auxiliary loss knows."""

    def __init__(self) -> None:
        super().__init__(net())
        self.weight = nn.Parameter(torch.tensor(0.3))

    def training_loss(self, episode, *, progress, roles=None):
        loss = super().training_loss(episode, progress=progress, roles=roles)
        z, _ = self.encoder.encode(episode.support.x)
        return loss + self.weight.square() * z.square().mean()


class HeadWithItsOwnLoss(PrototypeHead):
    def training_loss(self, episode, *, progress, roles=None):
        return 7 * super().training_loss(episode, progress=progress, roles=roles)


@pytest.mark.parametrize("roles", ["fixed", "every"])
def test_an_auxiliary_loss_is_trained(roles):
    config = CONFIG.model_copy(update={"roles": roles})
    plain, learner = PrototypicalNetwork(net()), WithAuxiliaryLoss()
    gap = batch_loss(learner, EPISODE, config).mean() - batch_loss(plain, EPISODE, config).mean()
    assert float(gap.detach()) > 1e-3
    meta_gradient(learner, EPISODE, config, progress=0.5)
    assert learner.weight.grad is not None
    assert float(learner.weight.grad) != 0


def test_the_certificate_certifies_what_is_trained():
    learner = WithAuxiliaryLoss().double()
    episode = _double(EPISODE)
    check_meta_gradient(learner, episode)

    class Wrong(WithAuxiliaryLoss):
        def training_loss(self, episode, *, progress, roles=None):
            loss = PrototypicalNetwork.training_loss(self, episode, progress=progress, roles=roles)
            return loss + self.weight.detach() * self.weight  # half of the gradient is cut off

    with pytest.raises(AssertionError, match="weight: the meta-gradient"):
        check_meta_gradient(Wrong().double(), episode)


def _double(episode):
    support, query = (replace(s, x=s.x.double()) for s in (episode.support, episode.query))
    return replace(episode, support=support, query=query)


def test_the_loss_of_a_head_is_trained():
    plain = EmbeddingLearner(net(), PrototypeHead())
    own = EmbeddingLearner(net(), HeadWithItsOwnLoss())
    losses = [batch_loss(one, EPISODE, CONFIG).detach() for one in (plain, own)]
    assert torch.allclose(7 * losses[0], losses[1])


def test_roles_that_would_be_ignored_are_refused():
    class KnowsNoRoles(PrototypicalNetwork):
        def training_loss(self, episode, *, progress):
            return super().training_loss(episode, progress=progress)

    learner = KnowsNoRoles(net())
    with pytest.raises(ConfigError, match="takes no roles"):
        batch_loss(learner, EPISODE, CONFIG)
    assert batch_loss(learner, EPISODE, CONFIG.model_copy(update={"roles": "fixed"})).shape == (4,)
