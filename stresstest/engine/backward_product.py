"""A backward pass that begins with a tensor: u -> J^T u."""

from __future__ import annotations

import torch
from torch import Tensor


def backward_product(
    output: Tensor, leaf: Tensor, along: Tensor, retain_graph: bool | None = None, create_graph: bool = False
) -> Tensor:
    """J^T along, in the shape of `leaf`, for J of `output` by `leaf`; the rest is as of `torch.autograd.grad`.

    As the gradient of a sum, which is that product to the bit: with `grad_outputs` torch 2.13 imports sympy, 0.6 s of
    each process.
    """
    product = (output * along).sum()
    return torch.autograd.grad(product, leaf, retain_graph=retain_graph, create_graph=create_graph)[0]
