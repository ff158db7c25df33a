"""Which device to compute on."""

from __future__ import annotations

import torch

from quickstudy.core.errors import ConfigError, nearest_names

__all__ = ["choose_device", "computes_bfloat16"]

_DEVICES = ("auto", "cpu", "cuda", "cuda:1", "mps")
_KINDS = ("cpu", "cuda", "mps")


def computes_bfloat16(device: torch.device | str) -> bool:
    """Return whether a device computes bfloat16 itself.

    A processor that only emulates it (without AVX-512) is a hundred times slower than in float32.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if kind != "cpu" or not torch.backends.mkldnn.is_available():
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of that name; ``"auto"`` takes a GPU if there is one.

    Raises:
        ConfigError: if there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        text = str(name)
        if text.partition(":")[0] in _KINDS:
            raise ConfigError(
                f"device {text!r} is not on this machine, as far as PyTorch sees. Take 'auto', "
                "which finds a GPU if there is one, or 'cpu'."
            ) from error
        raise ConfigError(
            f"there is no device {text!r}. {nearest_names(text, _DEVICES)} 'auto' takes a GPU if "
            "there is one."
        ) from error
    if device.type == "meta":
        raise ConfigError("device 'meta' holds no numbers to compute with. Take 'auto' or 'cpu'.")
    return device
