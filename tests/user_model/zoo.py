"""A tiny model with the optimizers of eight libraries beside it, as a user's file would have them."""

from __future__ import annotations

import heavyball
import lion_pytorch
import optimi
import prodigyopt
import pytorch_optimizer
import schedulefree
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

heavyball.utils.compile_mode = None  # a compiler would take minutes
V = 16


def build():
    return nn.Sequential(nn.Embedding(V, 16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, V))


def batch(step, batch_size, generator):
    """A rule that three targets in ten break: who is sure of all of them is far worse than who knows nothing."""
    x, any_target = torch.randint(V, (2, batch_size, 8), generator=generator)
    broken = torch.rand(batch_size, 8, generator=generator) < 0.3
    return x, torch.where(broken, any_target, (3 * x + 1) % V)


def _of(kind, **options):
    def optimizer(params, lr):
        return kind(params, lr=lr, **options)

    return optimizer


adam = _of(optim.Adam)
adamw = _of(optim.AdamW)
adamw_8_99 = _of(optim.AdamW, betas=(0.8, 0.99))
adamax = _of(optim.Adamax)
nadam = _of(optim.NAdam)
radam = _of(optim.RAdam)
sgd = _of(optim.SGD)
nesterov = _of(optim.SGD, momentum=0.9, nesterov=True)
rmsprop = _of(optim.RMSprop)
rprop = _of(optim.Rprop)
asgd = _of(optim.ASGD)
adadelta = _of(optim.Adadelta)
adagrad = _of(optim.Adagrad)
adafactor = _of(optim.Adafactor)
lbfgs = _of(optim.LBFGS, max_iter=4)


def muon(model, lr):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    return [optim.Muon(matrices, lr=lr), optim.AdamW([p for p in model.parameters() if p.ndim != 2], lr=lr)]


def sparse_adam(model, lr):
    model[0].sparse = True
    rest = [p for p in model.parameters() if p is not model[0].weight]
    return [optim.SparseAdam([model[0].weight], lr=lr), optim.Adam(rest, lr=lr)]


def hf_adafactor(params, lr):
    from transformers.optimization import Adafactor

    return Adafactor(params, lr=lr, relative_step=False, scale_parameter=False)


def hf_relative(params, lr):
    from transformers.optimization import Adafactor

    return Adafactor(params)  # its own schedule: its LR is None


came = _of(pytorch_optimizer.CAME)
po_lion = _of(pytorch_optimizer.Lion)
adopt = _of(pytorch_optimizer.ADOPT)
ademamix = _of(pytorch_optimizer.AdEMAMix)
soap = _of(pytorch_optimizer.SOAP)
shampoo = _of(pytorch_optimizer.Shampoo)
adan = _of(pytorch_optimizer.Adan)
lamb = _of(pytorch_optimizer.Lamb)
adabound = _of(pytorch_optimizer.AdaBound)
adabelief = _of(pytorch_optimizer.AdaBelief)
ranger21 = _of(pytorch_optimizer.Ranger21, num_iterations=30)
dadapt = _of(pytorch_optimizer.DAdaptAdam)
relative_adafactor = _of(pytorch_optimizer.AdaFactor, relative_step=True)


def sam(params, lr):
    return pytorch_optimizer.SAM(params, optim.SGD, lr=lr, momentum=0.9)


def lookahead(params, lr):
    return pytorch_optimizer.Lookahead(optim.AdamW(params, lr=lr))


heavy_adamw = _of(heavyball.AdamW)
heavy_muon = _of(heavyball.Muon)
heavy_soap = _of(heavyball.SOAP)
heavy_sfadamw = _of(heavyball.SFAdamW)
sf_adamw = _of(schedulefree.AdamWScheduleFree)
sf_sgd = _of(schedulefree.SGDScheduleFree)
prodigy = _of(prodigyopt.Prodigy)
lion = _of(lion_pytorch.Lion, weight_decay=0.01)
lion_decoupled = _of(lion_pytorch.Lion, weight_decay=1e-4, decoupled_weight_decay=True)
optimi_adamw = _of(optimi.AdamW)
optimi_decoupled = _of(optimi.AdamW, decouple_lr=True, weight_decay=1e-5)
optimi_stable = _of(optimi.StableAdamW, triton=False)  # which it takes on a CPU too, where it is installed
optimi_ranger = _of(optimi.Ranger)


def const_wd(params, lr):
    return optim.AdamW(params, lr=lr, weight_decay=0.001 / lr)


def warm_inside(params, lr):
    found = optim.AdamW(params, lr=lr)
    lr_scheduler.LambdaLR(found, lambda step: min(1.0, step / 10))  # whose first step is taken at once: LR 0
    return found


def one_cycle(params, lr):
    found = optim.AdamW(params, lr=lr, betas=(0.8, 0.99))
    lr_scheduler.OneCycleLR(found, max_lr=lr, total_steps=100)
    return found


def cyclic(params, lr):
    found = optim.AdamW(params, lr=lr, betas=(0.8, 0.99))
    lr_scheduler.CyclicLR(found, base_lr=lr / 10, max_lr=lr, base_momentum=0.7, max_momentum=0.95)
    return found


def zero_group(model):
    parameters = list(model.parameters())
    return optim.AdamW([{"params": parameters[:1], "lr": 0.0}, {"params": parameters[1:]}], lr=1e-3)


class Clears(optim.AdamW):
    """Its gradients are gone after a step."""

    def step(self, closure=None):
        super().step(closure)
        self.zero_grad(set_to_none=False)


clears = _of(Clears)


class Replaces(optim.AdamW):
    """Its parameters lie elsewhere after a step."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data.clone()


replaces = _of(Replaces)


def ignores_lr(params, lr):
    return optim.AdamW(params, lr=1e-3)


def leaves_out(model, lr):
    return optim.AdamW(list(model.parameters())[1:], lr=lr)


def own_lr(model, lr):
    parameters = list(model.parameters())
    return optim.AdamW([{"params": parameters[:1], "lr": 0.01}, {"params": parameters[1:]}], lr=lr)
