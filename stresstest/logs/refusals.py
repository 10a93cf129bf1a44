"""Losses that say nothing of stability by their course: adversarial, reinforcement learning, preferences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from stresstest.logs.curve import Floats
from stresstest.logs.losses import is_loss, parts_of
from stresstest.logs.names import is_validation, words

_ADVERSARIAL = frozenset(
    "gen generator disc discriminator critic adv adversarial gan errd errg dis netd netg wgan".split()
)
_REWARDS = frozenset("reward rewards advantage advantages return returns rew".split())
_POLICY = frozenset("policy actor pg surrogate ppo qf qf1 qf2 td q vf".split())
_POLICY_GRADIENT = frozenset(("policy", "grad", "loss"))
_PREFERENCE = frozenset("chosen rejected margins".split())
_FEWEST, _CHANGES = 10, 0.2  # rows, and the share of them at which the sign changes
# LLaMA-Factory writes `accuracy` beside these only where pairs are compared: it is TRL's rewards/accuracies.
_LLAMA_FACTORY_PAIRS = frozenset(("current_steps", "percentage", "accuracy"))


def refusal(short: Mapping[str, str]) -> str:
    """Why a log of these names is not judged, in one sentence; empty where it can be."""
    said = {key: set(words(name)) for key, name in short.items()}
    pairs = [key for key, of in said.items() if of & _PREFERENCE and of & {"reward", "rewards", "logps", "logits"}]
    if pairs or set(short) >= _LLAMA_FACTORY_PAIRS:
        return _sentence("a preference loss", pairs or ["accuracy"], "it falls also where the model gets worse")
    rewards = [key for key, of in said.items() if of & _REWARDS or {"completion", "length"} <= of or "rollout" in of]
    policies = [key for key, of in said.items() if (is_loss(short[key]) and of & _POLICY) or of >= _POLICY_GRADIENT]
    if rewards or policies:
        return _sentence("reinforcement learning", [*rewards, *policies], "its loss has no level to hold")
    return _adversarial({key: name for key, name in short.items() if is_loss(name) or words(name)[:1] == ("err",)})


def _adversarial(losses: Mapping[str, str]) -> str:
    """Two players, and no loss beside theirs."""
    said = {key: set(words(name)) for key, name in losses.items() if not is_validation(name)}
    players = [key for key, of in said.items() if of & _ADVERSARIAL]
    both = {letter: [key for key, of in said.items() if letter in of] for letter in ("d", "g")}
    if all(both.values()):
        players += [key for keys in both.values() for key in keys if key not in players]
    others = [key for key in said if key not in players and (not parts_of(losses[key]) or "loss" not in said[key])]
    if players and not others:
        return _sentence("adversarial training", players, "neither loss has a level to hold")
    return ""


def about_zero(loss: Floats) -> str:
    """Why a loss whose sign changes all the time is not judged; empty of any other."""
    finite = loss[np.isfinite(loss) & (loss != 0)]
    if len(finite) < _FEWEST or float(np.mean(np.diff(np.sign(finite)) != 0)) < _CHANGES:
        return ""
    return "not judged: the loss lies about 0 and changes its sign all along, so that it has no level to hold"


def _sentence(kind: str, keys: Iterable[str], why: str) -> str:
    listed = list(dict.fromkeys(keys))
    shown = ", ".join(repr(key) for key in listed[:3]) + (" and more" if len(listed) > 3 else "")
    verb = "are" if len(listed) > 1 else "is"
    return f"not judged: {shown} {verb} of {kind}, and {why}; --metric NAME judges one of the columns all the same"
