"""The recipes by name: a literal dict. Third parties add theirs through the entry point group
``quickstudy.recipes``."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from quickstudy.core import ConfigError, nearest_names
from quickstudy.core.arguments import checked
from quickstudy.recipes.base import LearnerConfig
from quickstudy.recipes.data import (
    AlsoConfig,
    GaussianProcessData,
    ImageData,
    JitterConfig,
    SinusoidData,
)
from quickstudy.recipes.encoders import EncoderConfig
from quickstudy.recipes.gradient import ANILConfig, MAMLConfig, ProtoMAMLConfig
from quickstudy.recipes.incontext import InContextConfig
from quickstudy.recipes.kinds import learner_config
from quickstudy.recipes.memory import LSTMConfig, MANNConfig, SNAILConfig
from quickstudy.recipes.metric import MatchingConfig, ProtoNetConfig
from quickstudy.recipes.processes import ANPConfig, CNPConfig
from quickstudy.recipes.schema import Recipe
from quickstudy.training import TrainConfig, ValidationConfig

__all__ = ["RECIPES", "get_recipe", "known_recipes"]

# jitter imitates other people's handwriting; class_jitter slants, stretches and mirrors all images
# of a class in a task alike, which makes a new character of it
_INK_AUGMENTATION = {
    "rotations": True,
    "jitter": JitterConfig(),
    "class_jitter": JitterConfig(degrees=36, scale=0.15, shear=0.3, shift=0, flip=True),
}
_OMNIGLOT_VINYALS = ImageData(name="omniglot", split_file="vinyals", **_INK_AUGMENTATION)
_OMNIGLOT_BACKGROUND = ImageData(
    name="omniglot", split_file="background-evaluation", **_INK_AUGMENTATION
)
_PHOTO_JITTER = JitterConfig(
    degrees=10, scale=0.15, shear=0.1, shift=0.15, flip=True, brightness=0.3
)
_LIGHT_JITTER = JitterConfig(degrees=0, scale=0.1, shear=0, shift=0.05, flip=True, brightness=0.1)
_OMNIGLOT_TRAINING = TrainConfig(
    steps=12_000,
    n_way=60,
    k_shot=1,
    n_query=5,
    roles="every",
    outer_lr=3e-3,
    ema_decay=0.999,
    precision="bfloat16",
    checkpoint_every=1000,
    log_every=100,
    validation=ValidationConfig(n_way=20, k_shot=1, episodes=1000, every=2000),
)
# the papers on gradient-based learners draw their 1,200 training characters at random
_OMNIGLOT_RANDOM = ImageData(name="omniglot", split_file="random", **_INK_AUGMENTATION)
_SUPPORT_NORM_NET = EncoderConfig(norm="support")
_GRADIENT_TRAINING = TrainConfig(
    steps=360,
    tasks_per_step=4,
    n_way=20,
    k_shot=1,
    n_query=2,
    outer_lr=2e-3,
    warmup=10,
    ema_decay=0.95,
    checkpoint_every=50,
    log_every=10,
    validation=ValidationConfig(n_way=20, k_shot=1, n_query=5, episodes=150, every=120),
)


_SINE_NET = EncoderConfig(kind="mlp", in_features=1, channels=40)
_SINE_TRAINING = TrainConfig(
    steps=30_000,
    tasks_per_step=25,
    n_way=1,
    k_shot=10,
    n_query=10,
    outer_lr=1e-3,
    ema_decay=0.999,
    checkpoint_every=5_000,
    log_every=500,
    validation=ValidationConfig(n_way=1, k_shot=10, n_query=100, episodes=600, every=5_000),
)


# one training for all numbers of points: a neural process is meant to be told more as it comes
_PROCESS_NET = EncoderConfig(kind="mlp", in_features=1, channels=64)
_PROCESS_TRAINING = TrainConfig(
    steps=12_000,
    tasks_per_step=16,
    n_way=1,
    k_shot=(1, 15),
    n_query=15,
    # the papers' 5e-4 learns the same, more slowly
    outer_lr=1e-3,
    warmup=200,
    # near a point of the support the deviation is small and the gradient large
    clip_norm=1.0,
    ema_decay=0.999,
    checkpoint_every=1_000,
    log_every=500,
    validation=ValidationConfig(n_way=1, k_shot=(3, 10), n_query=50, episodes=400, every=2_000),
)


def _gradient(name: str, summary: str, learner: LearnerConfig, **training: Any) -> Recipe:
    """Return a recipe of a gradient learner on Omniglot that starts from a trained encoder."""
    return Recipe(
        name=name,
        summary=summary,
        data=_OMNIGLOT_RANDOM,
        encoder=_SUPPORT_NORM_NET,
        learner=learner,
        train=_GRADIENT_TRAINING.model_copy(update=training),
        start="omniglot-start",
    )


def _twenty_and_five_way(kind: str, title: str, **settings: Any) -> dict[str, Recipe]:
    """Return a learner's recipes for 20-way and for 5-way tasks: the papers train one for each.

    The gradient of a 5-way loss is larger, so the inner learning rate that is best at 20-way (0.2)
    diverges at 5-way. Both rates were chosen on validation classes, before any meta-training.
    """
    name = f"omniglot-{kind}"
    same = {"kind": kind, **settings}
    twenty = learner_config({**same, "inner_steps": 6, "inner_lr": 0.2})
    five = learner_config({**same, "inner_steps": 5, "eval_steps": 8, "inner_lr": 0.06})
    validation = ValidationConfig(n_way=5, k_shot=1, n_query=5, episodes=400, every=40)
    return {
        name: _gradient(name, f"{title}, on Omniglot, 20-way", twenty, steps=60, outer_lr=1e-4),
        f"{name}-5way": _gradient(
            f"{name}-5way",
            f"{title}, on Omniglot, 5-way",
            five,
            **{"n_way": 5, "n_query": 3, "tasks_per_step": 16, "steps": 40, "outer_lr": 3e-4},
            validation=validation,
        ),
    }


_PROTOMAML = ProtoMAMLConfig(inner_steps=1, inner_lr=0.05, temperature=4)
_PROTOMAML_TRAINING = {"tasks_per_step": 8, "outer_lr": 5e-4}

_CIFAR_TRAINING = TrainConfig(
    steps=8_000,
    n_way=20,
    k_shot=1,
    n_query=14,
    roles="every",
    outer_lr=2e-3,
    weight_decay=5e-4,
    ema_decay=0.999,
    precision="bfloat16",
    log_every=100,
    validation=ValidationConfig(n_way=5, k_shot=1, episodes=1000, every=1000),
)

# Santoro et al. 2016, section 4: 1,200 characters with their rotations, small turns and shifts of
# each image, streams of 5 classes and 50 images
_OMNIGLOT_STREAMS = ImageData(
    name="omniglot",
    split_file="random",
    rotations=True,
    jitter=JitterConfig(degrees=10, scale=0, shear=0, shift=0.1),
)
_PIXELS = EncoderConfig(kind="pixels", image_size=20)
_STREAM_TRAINING = TrainConfig(
    steps=100_000,
    tasks_per_step=16,
    n_way=5,
    k_shot=10,
    n_query=1,
    outer_lr=1e-3,
    schedule="constant",
    warmup=0,
    clip_norm=10.0,
    ema_decay=0.999,
    checkpoint_every=250,
    log_every=50,
    # chosen by 5-way 1-shot tasks, which are the beginning of a stream
    validation=ValidationConfig(
        n_way=5, k_shot=1, n_query=5, episodes=200, every=500, watch_episodes=0
    ),
)

# these overfit on purpose: few classes, no augmentation, a network that can memorise them
_OVERFITTING_TRAINING = TrainConfig(
    steps=100,
    n_way=20,
    k_shot=1,
    n_query=4,
    roles="every",
    outer_lr=3e-3,
    schedule="constant",
    warmup=0,
    ema_decay=0.0,
    log_every=10,
    # often, because the training classes are memorised after twenty steps
    validation=ValidationConfig(n_way=5, k_shot=1, n_query=5, episodes=400, every=5),
)
_OVERFITTING_NET = EncoderConfig(kind="mlp", channels=256)

RECIPES: dict[str, Recipe] = {
    "omniglot-protonet": Recipe(
        name="omniglot-protonet",
        summary="Prototypical Network on Omniglot (Vinyals split, rotations); 15 minutes, 2 cores",
        data=_OMNIGLOT_VINYALS,
        learner=ProtoNetConfig(temperature=4),
        train=_OMNIGLOT_TRAINING,
    ),
    "omniglot-matching": Recipe(
        name="omniglot-matching",
        summary="Matching Network on Omniglot, Vinyals split with rotations; 10 minutes on 2 cores",
        data=_OMNIGLOT_VINYALS,
        learner=MatchingConfig(),
        train=_OMNIGLOT_TRAINING.model_copy(update={"steps": 6_000}),
    ),
    "omniglot-matching-fce": Recipe(
        name="omniglot-matching-fce",
        summary="Matching Network with full-context embeddings on Omniglot",
        data=_OMNIGLOT_VINYALS,
        learner=MatchingConfig(full_context=True),
        train=_OMNIGLOT_TRAINING.model_copy(
            update={"steps": 8_000, "n_way": 20, "roles": "fixed", "tasks_per_step": 2}
        ),
    ),
    "omniglot-mann": Recipe(
        name="omniglot-mann",
        summary="Memory-augmented neural network on streams of Omniglot (Santoro et al. 2016)",
        data=_OMNIGLOT_STREAMS,
        encoder=_PIXELS,
        learner=MANNConfig(),
        train=_STREAM_TRAINING,
    ),
    "omniglot-lstm": Recipe(
        name="omniglot-lstm",
        summary="LSTM on the same streams, the baseline of the memory-augmented network",
        data=_OMNIGLOT_STREAMS,
        encoder=_PIXELS,
        learner=LSTMConfig(),
        train=_STREAM_TRAINING,
    ),
    "omniglot-snail": Recipe(
        name="omniglot-snail",
        summary="SNAIL on Omniglot, 5-way tasks of 1 to 5 shots (Mishra et al. 2018)",
        data=_OMNIGLOT_RANDOM,
        learner=SNAILConfig(length=26),
        train=TrainConfig(
            steps=40_000,
            tasks_per_step=8,
            n_way=5,
            k_shot=(1, 5),
            n_query=2,
            outer_lr=1e-3,
            schedule="constant",
            warmup=50,
            clip_norm=10.0,
            ema_decay=0.999,
            checkpoint_every=250,
            log_every=50,
            validation=ValidationConfig(
                n_way=5, k_shot=1, n_query=5, episodes=400, every=500, watch_episodes=0
            ),
        ),
    ),
    "omniglot-background": Recipe(
        name="omniglot-background",
        summary="Prototypical Network on Omniglot's background alphabets only, for Lake's 20 runs",
        data=_OMNIGLOT_BACKGROUND,
        train=_OMNIGLOT_TRAINING.model_copy(update={"steps": 6_000}),
    ),
    "omniglot-characters": Recipe(
        name="omniglot-characters",
        summary="The character encoder that the package ships: background alphabets, wide net",
        data=_OMNIGLOT_BACKGROUND,
        encoder=EncoderConfig(channels=128),
        learner=ProtoNetConfig(temperature=8),
        train=_OMNIGLOT_TRAINING.model_copy(update={"steps": 4_000}),
    ),
    "omniglot-start": Recipe(
        name="omniglot-start",
        summary="The encoder that gradient learners start from: 12 minutes on 2 cores",
        data=_OMNIGLOT_RANDOM,
        learner=ProtoNetConfig(temperature=4),
        train=_OMNIGLOT_TRAINING.model_copy(update={"steps": 5_000}),
    ),
    **_twenty_and_five_way("maml", "MAML, exact second order"),
    **_twenty_and_five_way("fomaml", "First-order MAML"),
    **_twenty_and_five_way("reptile", "Reptile", minibatches=3),
    **_twenty_and_five_way("metasgd", "Meta-SGD, a learned rate for every parameter"),
    "omniglot-anil": _gradient(
        "omniglot-anil",
        "ANIL on Omniglot: the head alone is adapted",
        ANILConfig(inner_steps=5, eval_steps=25, inner_lr=0.4),
    ),
    "omniglot-protomaml": _gradient(
        "omniglot-protomaml",
        "Proto-MAML on Omniglot, learned rates",
        _PROTOMAML,
        steps=300,
        **_PROTOMAML_TRAINING,
    ),
    "omniglot-start-vinyals": Recipe(
        name="omniglot-start-vinyals",
        summary="The same start on the Vinyals split",
        data=_OMNIGLOT_VINYALS,
        learner=ProtoNetConfig(temperature=4),
        train=_OMNIGLOT_TRAINING.model_copy(update={"steps": 3_000}),
    ),
    "omniglot-protomaml-vinyals": _gradient(
        "omniglot-protomaml-vinyals",
        "Proto-MAML on Omniglot, Vinyals split",
        _PROTOMAML,
        steps=150,
        **_PROTOMAML_TRAINING,
    ).model_copy(update={"data": _OMNIGLOT_VINYALS, "start": "omniglot-start-vinyals"}),
    "omniglot-incontext": Recipe(
        name="omniglot-incontext",
        summary="In-context transformer on Omniglot, from the encoder of omniglot-protonet",
        data=_OMNIGLOT_VINYALS,
        learner=InContextConfig(temperature=4),
        train=_OMNIGLOT_TRAINING.model_copy(
            update={
                "steps": 1_500,
                "n_way": 20,
                "tasks_per_step": 2,
                "outer_lr": 1e-3,
                "ema_decay": 0.99,
                "checkpoint_every": 250,
                "log_every": 50,
                "validation": ValidationConfig(n_way=20, k_shot=1, episodes=600, every=250),
            }
        ),
        start="omniglot-protonet",
    ),
    "sinusoid-maml": Recipe(
        name="sinusoid-maml",
        summary="MAML on sine waves (Finn et al. 2017, section 5.1): needs no data",
        data=SinusoidData(),
        encoder=_SINE_NET,
        learner=MAMLConfig(inner_steps=1, inner_lr=0.01),
        train=_SINE_TRAINING,
    ),
    "sinusoid-pretrained": Recipe(
        name="sinusoid-pretrained",
        summary="The baseline: one net for all sine waves, fine-tuned to each at test",
        data=SinusoidData(),
        encoder=_SINE_NET,
        learner=MAMLConfig(inner_steps=0, eval_steps=1, inner_lr=0.01),
        train=_SINE_TRAINING,
    ),
    "sinusoid-cnp": Recipe(
        name="sinusoid-cnp",
        summary="Conditional neural process on sine waves: mean and deviation; needs no data",
        data=SinusoidData(),
        encoder=_PROCESS_NET,
        learner=CNPConfig(width=128),
        train=_PROCESS_TRAINING.model_copy(update={"steps": 25_000, "outer_lr": 2e-3}),
    ),
    "sinusoid-anp": Recipe(
        name="sinusoid-anp",
        summary="Attentive neural process on sine waves: needs no data",
        data=SinusoidData(),
        encoder=_PROCESS_NET,
        learner=ANPConfig(width=64, heads=4),
        train=_PROCESS_TRAINING,
    ),
    "gp-anp": Recipe(
        name="gp-anp",
        summary="Attentive neural process on functions of Gaussian processes: needs no data",
        data=GaussianProcessData(),
        encoder=_PROCESS_NET,
        learner=ANPConfig(width=64, heads=4),
        train=_PROCESS_TRAINING.model_copy(update={"steps": 8_000, "k_shot": (1, 25)}),
    ),
    "cifar-fs-protonet": Recipe(
        name="cifar-fs-protonet",
        summary="Prototypical Network (Conv-4) on CIFAR-FS",
        data=ImageData(name="cifar-fs", jitter=_PHOTO_JITTER),
        encoder=EncoderConfig(image_size=32, in_channels=3),
        train=_CIFAR_TRAINING,
    ),
    "cifar-fs-protonet-5shot": Recipe(
        name="cifar-fs-protonet-5shot",
        summary="The same, trained on 5-shot episodes",
        data=ImageData(name="cifar-fs", jitter=_PHOTO_JITTER),
        encoder=EncoderConfig(image_size=32, in_channels=3),
        train=_CIFAR_TRAINING.model_copy(
            update={
                "k_shot": 5,
                "n_query": 10,
                "validation": ValidationConfig(n_way=5, k_shot=5, episodes=1000, every=1000),
            }
        ),
    ),
    "miniimagenet-protonet": Recipe(
        name="miniimagenet-protonet",
        summary="Prototypical Network (Conv-4) on miniImageNet; 75 minutes on 2 cores",
        data=ImageData(name="miniimagenet", jitter=_LIGHT_JITTER),
        encoder=EncoderConfig(image_size=84, in_channels=3),
        # distances of 1,600 features are large: at temperature 1 the softmax starts saturated, and
        # the first thousands of steps only shrink the embedding
        learner=ProtoNetConfig(temperature=200),
        train=TrainConfig(
            steps=14_000,
            n_way=20,
            k_shot=1,
            n_query=9,
            roles="every",
            outer_lr=3e-3,
            weight_decay=5e-4,
            ema_decay=0.999,
            precision="bfloat16",
            log_every=50,
            validation=ValidationConfig(n_way=5, k_shot=1, episodes=1000, every=1000),
        ),
    ),
    "vectors-protonet": Recipe(
        name="vectors-protonet",
        summary="Prototypical Network (MLP) on vectors: embeddings or a table of your own",
        data=ImageData(name="glyphs"),
        encoder=EncoderConfig(kind="mlp", channels=256, standardise=True),
        learner=ProtoNetConfig(temperature=8),
        train=TrainConfig(
            steps=2_000,
            n_way=5,
            k_shot=1,
            n_query=5,
            roles="every",
            tasks_per_step=4,
            outer_lr=1e-3,
            ema_decay=0.99,
            validation=ValidationConfig(n_way=5, k_shot=1, n_query=5, episodes=400, every=250),
        ),
    ),
    "several-protonet": Recipe(
        name="several-protonet",
        summary="Prototypical Network on characters and photographs: Omniglot and CIFAR-FS",
        data=ImageData(
            name="omniglot",
            split_file="vinyals",
            **_INK_AUGMENTATION,
            also=(AlsoConfig(name="cifar-fs", jitter=_PHOTO_JITTER),),
        ),
        # batch norm's running averages over both data sets would fit neither
        encoder=EncoderConfig(image_size=32, in_channels=3, norm="group"),
        train=_CIFAR_TRAINING.model_copy(update={"steps": 16_000}),
    ),
    "omniglot-few": Recipe(
        name="omniglot-few",
        summary="Overfits on purpose: 20 characters of Omniglot, no augmentation; seconds",
        data=ImageData(name="omniglot", split_file="vinyals", classes=20),
        encoder=_OVERFITTING_NET,
        train=_OVERFITTING_TRAINING,
    ),
    "glyphs-few": Recipe(
        name="glyphs-few",
        summary="Overfits on purpose: 20 rendered characters, no augmentation; needs no data",
        data=ImageData(name="glyphs", classes=20),
        encoder=_OVERFITTING_NET,
        train=_OVERFITTING_TRAINING,
    ),
    "glyphs-protonet": Recipe(
        name="glyphs-protonet",
        summary="Prototypical Network on characters rendered from fonts: needs no data",
        data=ImageData(name="glyphs", rotations=True, jitter=JitterConfig()),
        train=_OMNIGLOT_TRAINING.model_copy(
            update={
                "steps": 1_500,
                "validation": ValidationConfig(n_way=20, k_shot=1, episodes=400, every=500),
            }
        ),
    ),
}


def known_recipes() -> dict[str, Recipe]:
    """Return all recipes: ours, and those of installed packages with other names."""
    others = {point.name: point.load() for point in entry_points(group="quickstudy.recipes")}
    return others | RECIPES


@checked
def get_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        ConfigError: if there is none; the nearest names are offered.
    """
    recipes = known_recipes()
    if name not in recipes:
        raise ConfigError(f"there is no recipe {name!r}. {nearest_names(name, recipes)}")
    return recipes[name]
