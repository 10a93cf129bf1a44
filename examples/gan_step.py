"""A GAN, which no single loss describes: a whole training step of your own, judged by the number that it returns.

    stresstest lr-range --model gan_step.py:build

`step(model, batch, lr)` trains both networks. What it keeps from step to step hangs on the model: `model.opts`.
"""

import torch
from torch import Tensor, nn


class Gan(nn.Module):
    """A generator of points in the plane and its critic, each with an optimizer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2))
        self.critic = nn.Sequential(nn.Linear(2, width), nn.LeakyReLU(0.2), nn.Linear(width, 1, bias=False))
        parts = (self.generator, self.critic)
        self.opts = [torch.optim.Adam(part.parameters(), betas=(0.5, 0.9)) for part in parts]


def build(width: int = 32) -> nn.Module:
    """The model to test."""
    return Gan(width)


def batch(step: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Real points, as a function of the step: draw from `generator`."""
    return 0.3 * torch.randn(64, 2, generator=generator) + torch.tensor([3.0, -2.0])


def step(model: Gan, batch: Tensor, lr: float) -> float:
    """Train both once (Wasserstein GAN with a gradient penalty); the distance of what is generated from the real."""
    for optimizer, times in zip(model.opts, (1.0, 2.0), strict=True):
        optimizer.param_groups[0]["lr"] = lr * times
    for_generator, for_critic = model.opts
    noise = torch.randn(len(batch), 2)
    fake = model.generator(noise)

    between = (0.5 * fake + 0.5 * batch).detach().requires_grad_()
    (slope,) = torch.autograd.grad(model.critic(between).sum(), between, create_graph=True)
    penalty = 10.0 * (slope.norm(dim=1) - 1.0).square().mean()
    for_critic.zero_grad()
    (model.critic(fake.detach()).mean() - model.critic(batch).mean() + penalty).backward()
    for_critic.step()

    for_generator.zero_grad()
    (-model.critic(fake).mean()).backward()
    for_generator.step()
    fake = fake.detach()
    return float((fake.mean(0) - batch.mean(0)).norm() + (fake.std(0) - batch.std(0)).norm())
