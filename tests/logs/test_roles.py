import numpy as np
import pytest

from stresstest.logs.curve import Curve, Role
from stresstest.logs.losses import choose_loss, validation_of
from stresstest.logs.names import without_prefix
from stresstest.logs.roles import counted_in, find, has_a_role, learning_rates, moving, step_key

LIGHTNING = ["epoch", "lr-AdamW", "step", "train_loss_epoch", "train_loss_step", "val_loss"]
MEGATRON = ["iteration", "elapsed time per iteration (ms)", "learning rate", "lm loss", "loss scale", "grad norm"]
YOLO = ["epoch", "train/box_loss", "train/cls_loss", "val/box_loss", "val/cls_loss", "lr/pg0", "lr/pg1"]
DETECTRON = ["iteration", "loss_box_reg", "loss_cls", "total_loss", "lr", "time"]
RUN = ["happy-sun-3/train/loss", "happy-sun-3/train/global_step", "happy-sun-3/eval/loss", "happy-sun-3/train/epoch"]


def curve(*values: float) -> Curve:
    n = len(values)
    return Curve(np.arange(n, dtype=float), np.array(values, dtype=float), np.arange(n))


@pytest.mark.parametrize(
    ("keys", "role", "key"),
    [
        (LIGHTNING, "loss", "train_loss_step"),
        (LIGHTNING, "validation", "val_loss"),
        (LIGHTNING, "lr", "lr-AdamW"),
        (MEGATRON, "loss", "lm loss"),
        (MEGATRON, "loss_scale", "loss scale"),
        (MEGATRON, "grad_norm", "grad norm"),
        (YOLO, "loss", "train/box_loss+train/cls_loss"),
        (YOLO, "validation", None),
        (DETECTRON, "loss", "total_loss"),
        (DETECTRON, "step", "iteration"),
        (RUN, "loss", "happy-sun-3/train/loss"),
        (RUN, "validation", "happy-sun-3/eval/loss"),
        (RUN, "step", "happy-sun-3/train/global_step"),
        (["Step", "Train Loss", "Val Loss"], "loss", "Train Loss"),
        (["trainLoss", "valLoss"], "validation", "valLoss"),
        (["loss", "mean_loss_time", "best_loss"], "loss", "loss"),
        (["train_nll", "train_kl", "train_loss"], "loss", "train_loss"),
        (["Step", "fox-1 - loss", "fox-1 - loss__MIN", "fox-1 - loss__MAX"], "loss", "fox-1 - loss"),
        (["epoch", "train-rmse", "test-rmse"], "loss", "train-rmse"),
        (["epoch", "loss", "val_learning_rate"], "lr", None),
        (["grad/layer1/norm", "param_norm"], "grad_norm", None),
        (["optim/total_grad_norm", "grad/layer1/norm"], "grad_norm", "optim/total_grad_norm"),
        (["consumed samples", "loss"], "step", "consumed samples"),
        (["tokens per second", "loss"], "step", None),
        (["epoch", "accuracy"], "loss", None),
        (["rank", "loss"], "rank", "rank"),
    ],
)
def test_a_role_is_found_by_the_words_of_its_name(keys: list[str], role: Role, key: str | None) -> None:
    assert find(role, keys) == key


@pytest.mark.parametrize("key", ["loss_scale", "loss_weight", "best_loss", "time_loss", "val_loss_patience"])
def test_a_name_with_loss_in_it_need_not_be_a_loss(key: str) -> None:
    assert find("loss", ["step", key]) is None


def test_of_two_whole_losses_the_one_with_rows_is_taken_and_the_other_named() -> None:
    curves = {"loss": curve(3, 2, 1, 0.5), "train_loss": curve(1.6)}
    choice = choose_loss({"loss": "loss", "train_loss": "train_loss"}, curves)
    assert choice.keys == ("loss",)
    assert "'train_loss'" in choice.note


def test_a_validation_loss_stands_in_only_where_no_train_loss_is_and_it_is_said() -> None:
    assert choose_loss(without_prefix(["epoch", "val_loss", "loss"])).keys == ("loss",)
    choice = choose_loss(without_prefix(["epoch", "val_loss"]))
    assert choice.keys == ("val_loss",)
    assert "no train loss" in choice.note


def test_a_perplexity_is_the_last_resort_and_its_log_is_taken() -> None:
    assert choose_loss(without_prefix(["train_ppl", "train_loss"])).unit == "nats"
    assert choose_loss(without_prefix(["step", "train_ppl", "val_ppl"])).unit == "log of perplexity"
    assert choose_loss(without_prefix(["step", "train_bpc"])).unit == "bits"


@pytest.mark.parametrize("key", ["train-rmse", "training's l2", "Train_MSE", "learn RMSE", "mean squared error"])
def test_a_plain_metric_stands_in_for_the_loss(key: str) -> None:
    assert choose_loss(without_prefix(["step", key])).keys == (key,)


@pytest.mark.parametrize("key", ["train_z_mu_L1", "MSE score", "l2 of the weights", "error count"])
def test_a_metric_of_something_else_is_no_loss(key: str) -> None:
    assert choose_loss(without_prefix(["step", key])).keys == ()


def test_the_losses_of_basicsr_are_named_with_an_l() -> None:
    assert choose_loss(without_prefix(["iter", "lr", "l_pix", "l_percep"])).keys == ("l_pix", "l_percep")
    assert choose_loss(without_prefix(["iter", "l_rate", "l_max"])).keys == ()


def test_a_bare_loss_gives_way_to_a_train_loss_that_is_logged_as_often() -> None:
    often, seldom = curve(3, 2, 1), curve(2)
    short = without_prefix(["loss", "train loss"])
    assert choose_loss(short, {"loss": often, "train loss": often}).keys == ("train loss",)
    assert choose_loss(short, {"loss": often, "train loss": seldom}).keys == ("loss",)
    with_others = without_prefix(["loss", "train_loss_ce"])
    assert choose_loss(with_others, {"loss": often, "train_loss_ce": often}).keys == ("loss",)


def test_the_validation_loss_has_the_parts_of_the_train_loss() -> None:
    short = without_prefix([*YOLO, "val/dfl_loss"])
    assert validation_of(short, ("train/box_loss", "train/cls_loss")) == ("val/box_loss", "val/cls_loss")


def test_of_several_learning_rates_the_first_that_moves_is_taken() -> None:
    keys = learning_rates(["lr/pg0", "lr/pg1", "lr_scale"])
    assert keys == ("lr/pg0", "lr/pg1")
    assert moving(keys, {"lr/pg0": curve(1, 1), "lr/pg1": curve(1, 2)}) == "lr/pg1"
    assert moving(keys, {"lr/pg0": curve(1, 1), "lr/pg1": curve(2, 2)}) == "lr/pg0"


def test_what_a_step_counts_is_said_by_its_name() -> None:
    assert [counted_in(key) for key in ("iter", "epoch", "num_tokens", "")] == ["steps", "epochs", "tokens", "rows"]


def test_a_step_of_its_own_goes_before_what_was_consumed() -> None:
    assert step_key(["consumed_tokens", "loss", "iter"]) == "iter"


def test_columns_without_a_role_can_be_told() -> None:
    assert [has_a_role(key) for key in ("loss", "lr", "epoch", "weights/layer3/std", "accuracy")] == [True] * 3 + [
        False
    ] * 2
