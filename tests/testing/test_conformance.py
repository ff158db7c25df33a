"""Every learner and every source passes the suites that outsiders inherit."""

import pytest
import torch
from torch import nn

from quickstudy.core import EpisodeSpec, Examples
from quickstudy.learners import (
    ANIL,
    FOMAML,
    IMAML,
    MAML,
    AttentiveNeuralProcess,
    ConditionalNeuralProcess,
    InContextTransformer,
    InnerLoop,
    MatchingNetwork,
    MetaSGD,
    NearestNeighbour,
    ProtoMAML,
    PrototypicalNetwork,
    Reptile,
)
from quickstudy.learners.heads import (
    CentredHead,
    FineTunedHead,
    GradientHead,
    InContextHead,
    LogisticHead,
    NeighbourHead,
    RidgeHead,
)
from quickstudy.learners.metric import MatchingHead, PrototypeHead
from quickstudy.nets import MLP, Conv4, Identity, ResNet12
from quickstudy.tasks import (
    AffineJitter,
    AugmentedSource,
    GaussianProcessSource,
    MixtureSource,
    Pool,
    PoolSource,
    SinusoidSource,
)
from quickstudy.testing import (
    ConstantLearner,
    LearnerConformance,
    OracleLearner,
    PositionLearner,
    SourceConformance,
    gaussian_pool,
)


def conv(norm):
    return Conv4(image_size=16, channels=8, norm=norm, activation="tanh")


def mlp():
    return MLP((6,), (7, 5), activation=nn.Tanh)


class OnVectors(LearnerConformance):
    input_shape = (6,)


# ---------------------------------------------------------------------- learners


class TestPrototypicalBatch(LearnerConformance):
    def make_learner(self):
        return PrototypicalNetwork(conv("batch"))


class TestPrototypicalGroup(LearnerConformance):
    meta_steps = 20

    def make_learner(self):
        return PrototypicalNetwork(conv("group"), learn_temperature=True)


class TestPrototypicalSupport(LearnerConformance):
    meta_steps = 20

    def make_learner(self):
        return PrototypicalNetwork(conv("support"), distance="cosine", learn_temperature=True)


class TestPrototypicalOnVectors(OnVectors):
    # squared distances do not see a shift that is common to support and query
    zero_gradients = ("encoder.layers.2.bias",)

    def make_learner(self):
        return PrototypicalNetwork(mlp())


class TestPrototypicalCosineOnVectors(OnVectors):
    def make_learner(self):
        return PrototypicalNetwork(mlp(), distance="cosine")


class TestPrototypicalResNet(LearnerConformance):
    meta_steps = 5
    k_shot = 4
    difference_steps = (1e-7, 5e-8)  # leaky ReLU has kinks

    def make_learner(self):
        return PrototypicalNetwork(
            ResNet12(in_channels=1, image_size=16, widths=(4, 4, 4, 4), norm="batch")
        )


class TestPrototypicalResNetSupport(LearnerConformance):
    meta_steps = 5
    k_shot = 4
    difference_steps = (1e-7, 5e-8)  # leaky ReLU has kinks

    def make_learner(self):
        return PrototypicalNetwork(
            ResNet12(in_channels=1, image_size=16, widths=(4, 4, 4, 4), norm="support")
        )


class TestInContext(LearnerConformance):
    meta_steps = 20

    def make_learner(self):
        return InContextTransformer(conv("batch"), width=8)


class TestInContextSupport(LearnerConformance):
    meta_steps = 20

    def make_learner(self):
        return InContextTransformer(conv("support"), width=8, distance="cosine")


class TestInContextOnVectors(OnVectors):
    def make_learner(self):
        return InContextTransformer(mlp(), width=8, layers=1)


class TestInContextHead(OnVectors):
    def make_learner(self):
        return InContextHead(6, width=8, distance="euclidean")


class TestInContextHeadByRelations(OnVectors):
    def make_learner(self):
        return InContextHead(width=8)


class TestMatching(LearnerConformance):
    meta_steps = 20

    def make_learner(self):
        return MatchingNetwork(conv("batch"))


class TestMatchingPaper(OnVectors):
    def make_learner(self):
        return MatchingNetwork(mlp(), temperature=1.0, learn_temperature=False)


class TestMatchingFullContext(OnVectors):
    meta_steps = 50

    def make_learner(self):
        return MatchingNetwork(mlp(), full_context=True)


class TestMatchingFullContextSupportNorm(LearnerConformance):
    meta_steps = 5

    def make_learner(self):
        return MatchingNetwork(conv("support"), full_context=True)


class TestNearestNeighbour(LearnerConformance):
    trainable = False

    def make_learner(self):
        return NearestNeighbour()


class TestNearestNeighbourRegression(LearnerConformance):
    trainable = False
    regression = True
    k_shot = 8

    def make_learner(self):
        return NearestNeighbour()


class OnRegression(LearnerConformance):
    regression = True
    k_shot = 8
    meta_steps = 50

    def net(self):
        return MLP((1,), (7, 5), activation=nn.Tanh, last_activation=True)


class TestConditionalNeuralProcess(OnRegression):
    def make_learner(self):
        return ConditionalNeuralProcess(self.net(), width=8, depth=2)


class TestAttentiveNeuralProcess(OnRegression):
    def make_learner(self):
        return AttentiveNeuralProcess(self.net(), width=8, depth=2, heads=2, blocks=1)


class TestPrototypeHead(OnVectors):
    def make_learner(self):
        return PrototypeHead(learn_temperature=True)


class TestPrototypeHeadCosine(OnVectors):
    def make_learner(self):
        return PrototypeHead(distance="cosine", learn_temperature=True)


class TestPrototypeHeadShrunk(OnVectors):
    def make_learner(self):
        return PrototypeHead(shrinkage=0.7, learn_temperature=True)


class TestFineTunedHead(OnVectors):
    trainable = False

    def make_learner(self):
        return FineTunedHead(steps=20)


class TestFineTunedHeadCosine(OnVectors):
    trainable = False

    def make_learner(self):
        return FineTunedHead(cosine=True, steps=20)


class TestRidgeHead(OnVectors):
    def make_learner(self):
        return RidgeHead(learn=True)


class TestRidgeHeadUnbalancedDual(LearnerConformance):
    input_shape = (16,)  # more features than support examples

    def make_learner(self):
        return RidgeHead(learn=True, balanced=False)


class TestLogisticHead(OnVectors):
    trainable = False
    tolerance = 1e-8

    def make_learner(self):
        return LogisticHead(c=0.3, tolerance=1e-10)


class TestLogisticHeadBalancedDual(OnVectors):
    trainable = False
    input_shape = (16,)
    tolerance = 1e-8

    def make_learner(self):
        return LogisticHead(balanced=True, temperature=2.0, tolerance=1e-10)


class TestRidgeHeadKernel(OnVectors):
    def make_learner(self):
        return RidgeHead(learn=True, kernel_width=4.0)


class TestLogisticHeadKernel(OnVectors):
    trainable = False
    tolerance = 1e-7

    def make_learner(self):
        return LogisticHead(kernel_width=4.0, tolerance=1e-10)


class TestCentredHead(OnVectors):
    def make_learner(self):
        return CentredHead(NeighbourHead(learn_temperature=True), prior=2.0)


class TestNeighbourHead(OnVectors):
    def make_learner(self):
        return NeighbourHead(learn_temperature=True)


class TestNeighbourHeadNearestCosine(OnVectors):
    difference_steps = (1e-7, 5e-8)  # which example is nearest is a kink

    def make_learner(self):
        return NeighbourHead(neighbours=2, distance="cosine", learn_temperature=True)


class TestGradientHead(OnVectors):
    meta_steps = 20

    def make_learner(self):
        return GradientHead(6, steps=3, temperature=2.0)


class TestMatchingHead(OnVectors):
    def make_learner(self):
        return MatchingHead(6)


class TestMatchingHeadFullContext(OnVectors):
    meta_steps = 50

    def make_learner(self):
        return MatchingHead(6, full_context=True)


class TestPixelPrototypes(LearnerConformance):
    def make_learner(self):
        return PrototypicalNetwork(Identity((1, 16, 16)), learn_temperature=True)


# ------------------------------------------------------------ gradient-based learners


def strided():
    return Conv4(image_size=16, channels=8, norm="support", activation="tanh", downsample="stride")


class OnImages(LearnerConformance):
    meta_steps = 10


class TestMAML(OnImages):
    def make_learner(self):
        return MAML(conv("support"), n_way=3, inner=InnerLoop(steps=2))


class TestMAMLFlat(OnImages):
    def make_learner(self):
        return MAML(strided(), n_way=4, inner=InnerLoop(steps=3, memory="flat", clip=0.5))


class TestMAMLTransductive(OnImages):
    def make_learner(self):
        return MAML(strided(), n_way=3, query_statistics="query")


class TestMAMLLoop(OnImages):
    def make_learner(self):
        return MAML(strided(), n_way=3, engine="loop", rates="layer-step", multi_step=0.5)


class TestMAMLGroupNorm(OnImages):
    def make_learner(self):
        return MAML(conv("group"), n_way=3, rates="layer")


class TestMAMLResNet(OnImages):
    zero_gradients = ("head.weight",)  # common to all classes: changes no probability
    k_shot = 4
    meta_steps = 3
    difference_steps = (1e-7, 5e-8)  # leaky ReLU has kinks

    def make_learner(self):
        net = ResNet12(in_channels=1, image_size=16, widths=(4, 4, 4, 4), norm="support")
        return MAML(net, head="shared", inner=InnerLoop(lr=0.05))


class TestMAMLRegression(LearnerConformance):
    regression = True
    k_shot = 8
    meta_steps = 20

    def make_learner(self):
        net = MLP((1,), (7, 5), activation=nn.Tanh, last_activation=True)
        return MAML(net, n_way=1, inner=InnerLoop(steps=2, lr=0.01))


class TestMAMLOwnLastLayer(OnVectors):
    meta_steps = 20

    def make_learner(self):
        return MAML(MLP((6,), (7, 3), activation=nn.Tanh), head=None)


class TestFOMAML(OnImages):
    exact_gradient = False

    def make_learner(self):
        return FOMAML(strided(), n_way=3, inner=InnerLoop(steps=2))


class TestMetaSGD(OnImages):
    def make_learner(self):
        return MetaSGD(strided(), n_way=3)


class TestANIL(OnImages):
    def make_learner(self):
        return ANIL(strided(), n_way=3)


class TestANILShared(OnVectors):
    zero_gradients = ("head.weight",)  # common to all classes: changes no probability
    meta_steps = 20

    def make_learner(self):
        return ANIL(mlp(), head="shared")


class TestProtoMAML(OnImages):
    def make_learner(self):
        return ProtoMAML(strided(), temperature=2.0)


class TestReptile(OnImages):
    exact_gradient = False

    def make_learner(self):
        return Reptile(strided(), n_way=3)


class TestReptileAdam(OnVectors):
    exact_gradient = False
    meta_steps = 20

    def make_learner(self):
        return Reptile(mlp(), head="shared", optimiser="adam", inner=InnerLoop(steps=3, lr=0.01))


class TestIMAML(OnVectors):
    zero_gradients = ("head.weight",)  # common to all classes: changes no probability
    # the implicit gradient is that of the minimum: it has to be reached
    meta_steps = 3

    def make_learner(self):
        loop = InnerLoop(steps=120, lr=0.3)
        return IMAML(mlp(), head="shared", inner=loop, solver_steps=40)


# ------------------------------------------------------------------------------ fakes


class TestOracle(OnVectors):
    trainable = False

    def make_learner(self):
        return OracleLearner()

    def make_source(self):
        return PoolSource(gaussian_pool(8, 12, (6,), tell_class=True))


@pytest.mark.parametrize("fake", [ConstantLearner, PositionLearner])
def test_the_other_fakes_keep_the_contract_of_states(fake):
    class Fake(OnVectors):
        trainable = False

        def make_learner(self):
            return fake()

    Fake().test_shapes()
    Fake().test_state_has_the_task_axis()
    Fake().test_labels_out_of_range_are_refused()
    Fake().test_adapt_and_predict_change_nothing()


# ---------------------------------------------------------------------- sources


def image_pool():
    x = gaussian_pool(9, 14, (1, 16, 16), name="images").x
    pool = gaussian_pool(9, 14, (1,), groups_per_class=7)
    return Pool(
        (x * 40 + 128).clamp(0, 255).to(torch.uint8),
        pool.y,
        pool.class_names,
        "images",
        "train",
        pool.groups,
    )


class TestPoolSource(SourceConformance):
    episodes = 10_000

    def make_source(self):
        return PoolSource(gaussian_pool(12, 10, (3,)))

    def make_spec(self):
        return EpisodeSpec(5, 2, 3)


class TestPoolSourceAllClasses(SourceConformance):
    fresh_process = False

    def make_source(self):
        return PoolSource(gaussian_pool(4, 5, (3,)))

    def make_spec(self):
        return EpisodeSpec(4, 2, 3)  # every class and every row is used


class TestImageSource(SourceConformance):
    fresh_process = False

    def make_source(self):
        return PoolSource(image_pool())

    def make_spec(self):
        return EpisodeSpec(5, 1, 4)


class TestGroupAwareSource(SourceConformance):
    fresh_process = False

    def make_source(self):
        return PoolSource(image_pool(), group_aware=True)

    def make_spec(self):
        return EpisodeSpec(5, 2, 4)


class TestVariableSource(SourceConformance):
    fresh_process = False
    episodes = 1000

    def make_source(self):
        return PoolSource(gaussian_pool(12, 20, (3,)))

    def make_spec(self):
        return EpisodeSpec((3, 8), (1, 9), 5)


class TestAugmentedSource(SourceConformance):
    def make_source(self):
        return AugmentedSource(PoolSource(image_pool()), AffineJitter())

    def make_spec(self):
        return EpisodeSpec(5, 1, 4)


class TestMixtureSource(SourceConformance):
    fresh_process = False

    def make_source(self):
        parts = [PoolSource(gaussian_pool(c, 10, (3,), seed=c)) for c in (6, 9)]
        return MixtureSource(parts, [1, 3])

    def make_spec(self):
        return EpisodeSpec((3, 5), (1, 3), 2)


class TestSinusoidSource(SourceConformance):
    regression = True

    def make_source(self):
        return SinusoidSource("val")

    def make_spec(self):
        return EpisodeSpec(1, (3, 10), 7)


class TestGaussianProcessSource(SourceConformance):
    regression = True

    def make_source(self):
        return GaussianProcessSource("val")

    def make_spec(self):
        return EpisodeSpec(1, (3, 10), 7)


def test_examples_of_the_default_episode_are_enough_for_batch_statistics():
    episode = TestPrototypicalBatch().make_episode()
    assert isinstance(episode.support, Examples)
    assert episode.support.mask.sum(1).min() >= 8
