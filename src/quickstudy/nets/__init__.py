"""Plain networks that map inputs to embeddings."""

from quickstudy.nets.conv4 import Conv4
from quickstudy.nets.efficientnet import EfficientNetLite0, imagenet_weights
from quickstudy.nets.encoder import Encoder
from quickstudy.nets.mlp import MLP, Identity
from quickstudy.nets.norm import BatchNorm, GroupNorm, Norm, NormContext, SupportNorm, build_norm
from quickstudy.nets.plain import ModuleEncoder, as_encoder
from quickstudy.nets.resnet12 import ResNet12
from quickstudy.nets.temporal import CausalAttention, DenseBlock, TemporalConvolution
from quickstudy.nets.transformer import Members, PairBlock

__all__ = [
    "MLP",
    "BatchNorm",
    "CausalAttention",
    "Conv4",
    "DenseBlock",
    "EfficientNetLite0",
    "Encoder",
    "GroupNorm",
    "Identity",
    "Members",
    "ModuleEncoder",
    "Norm",
    "NormContext",
    "PairBlock",
    "ResNet12",
    "SupportNorm",
    "TemporalConvolution",
    "as_encoder",
    "build_norm",
    "imagenet_weights",
]
