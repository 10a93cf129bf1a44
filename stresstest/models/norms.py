"""The norm functions: a unit part without parameters, then a gain and a bias.

`unit` is differentiable; `unit_forward` and `unit_backward` are the same function for a backward
pass written by hand. The last dimension is the one that is normed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stresstest.models.layout import Init, Layout, Parameters

LAYER_NORM_EPS = 1e-5
RMS_NORM_EPS = 1e-6


def declare_norm(layout: Layout, norm: str, kind: str, layer: int, width: int) -> None:
    """Add the parameters of one norm: gain, bias (none in RMSNorm), DyT's alpha."""
    if norm == "none":
        return
    layout.add(f"{kind}.gain", layer, (width,), Init(mean=1.0))
    if norm != "rms-norm":
        layout.add(f"{kind}.bias", layer, (width,), Init())
    if norm == "dyt":
        layout.add(f"{kind}.alpha", layer, (), Init(mean=0.5))


def apply_norm(norm: str, parameters: Parameters, kind: str, layer: int, x_RNE: Tensor) -> Tensor:
    """The norm `kind` of a layer: gain * unit(x) + bias."""
    if norm == "none":
        return x_RNE
    gain_R1E = parameters[f"{kind}.gain", layer][:, None]
    if norm == "rms-norm":
        return unit(norm, x_RNE) * gain_R1E
    alpha = parameters[f"{kind}.alpha", layer][:, None, None] if norm == "dyt" else None
    return torch.addcmul(parameters[f"{kind}.bias", layer][:, None], unit(norm, x_RNE, alpha), gain_R1E)


def unit(norm: str, x: Tensor, alpha: Tensor | None = None) -> Tensor:
    """The norm without gain and bias; `alpha`, for DyT alone, broadcasts against x."""
    if norm == "rms-norm":
        return F.rms_norm(x, x.shape[-1:], eps=RMS_NORM_EPS)
    if norm == "layer-norm":
        return F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)
    assert alpha is not None, "DyT has an alpha"
    return torch.tanh(alpha * x)


def unit_forward(norm: str, x: Tensor, alpha: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(unit, what its backward pass needs beside it)."""
    if norm == "layer-norm":
        output, _, inverse_std = torch.native_layer_norm(x, x.shape[-1:], None, None, LAYER_NORM_EPS)
        return output, inverse_std
    if norm == "rms-norm":
        inverse_rms = (x.square().mean(-1, keepdim=True) + RMS_NORM_EPS).rsqrt_()
        return x * inverse_rms, inverse_rms
    return unit(norm, x, alpha), x


def unit_backward(norm: str, d: Tensor, output: Tensor, saved: Tensor, alpha: Tensor | None = None) -> Tensor:
    """The gradient of the input, given that of the unit part."""
    if norm == "dyt":
        assert alpha is not None, "DyT has an alpha"
        return (1.0 - output.square()).mul_(d).mul_(alpha)
    along = (d * output).mean(-1, keepdim=True)
    d = torch.addcmul(d, output, along, value=-1.0)
    if norm == "layer-norm":
        d -= d.mean(-1, keepdim=True)
    return d.mul_(saved)
