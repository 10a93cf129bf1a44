"""A model whose outputs start far off, with a loss of its own: its data are still worth learning."""

import pytest
import torch
from torch import Tensor, nn

from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.specs.profiles import make_spec
from stresstest.user_code import UserCodeError
from stresstest.user_model.bench import resolve_user_model, user_bench
from stresstest.user_model.factory import register_callable


class Far(nn.Module):
    """Takes its own squared error, of outputs some thousand times as large as the targets, [B, time, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 5 * 3)
        with torch.no_grad():
            self.body.weight.mul_(1e4)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        outputs = self.body(x).view(-1, 3, 5).transpose(1, 2)
        return nn.functional.mse_loss(targets, outputs)


def batch(step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(batch_size, 4, generator=generator)
    return x, (x[:, :1, None] * torch.ones(5, 3)).sin()


def of(loss_fn: object) -> float:
    with register_callable(Far, {}, batch=batch, loss_fn=loss_fn) as name:
        spec = resolve_user_model(
            make_spec(LrRangeSpec, "quick", {"model": name, "batch_size": 64}), sweeps_depth=False
        )
        return user_bench(spec, spec.variant[0], 1, "adam", "cpu").batches.baseline_loss


def test_the_constant_predictor_of_a_model_that_starts_far_off_is_that_of_its_data() -> None:
    variance = (1 - torch.exp(torch.tensor(-2.0))) / 2  # of sin(x), x normal
    assert of(lambda model, data: model(*data)) == pytest.approx(float(variance), rel=0.05)


def test_a_loss_that_constants_minimise_is_still_refused_where_the_start_is_far_off() -> None:
    def spread(model: Far, data: tuple[Tensor, Tensor]) -> Tensor:
        return model.body(data[0]).var(0).sum()

    with pytest.raises(UserCodeError, match="constant outputs already reach the lowest loss"):
        of(spread)
