"""Build a built-in model from its settings."""

from __future__ import annotations

from stresstest.errors import ConfigError
from stresstest.models.block import Model
from stresstest.models.encoder_decoder import EncoderDecoder
from stresstest.models.residual_mlp import ResidualMlp
from stresstest.models.resnet import ResNet
from stresstest.models.transformer import Transformer
from stresstest.models.variants import VARIANTS
from stresstest.specs.base import ModelSpec, ShapeSpec
from stresstest.specs.kinds import MODELS
from stresstest.specs.parsing import parse_choice
from stresstest.tasks.task import Task


def make_model(spec: ShapeSpec, variant: str, depth: int, task: Task) -> Model:
    """The built-in model of a spec, wired as `variant`, for the task's inputs and classes."""
    choice, shape = parse_choice(variant, VARIANTS), shape_at(spec, depth)
    if shape.model == "resnet":
        return ResNet(shape, choice.name, choice.options, task.num_inputs, task.num_classes)
    if shape.model == "mlp":
        return ResidualMlp(shape, choice.name, choice.options, task.num_inputs, task.num_classes)
    if shape.vocab_size is not None and shape.vocab_size < task.num_classes:
        raise ConfigError(f"vocab_size {shape.vocab_size} is below the {task.num_classes} tokens of the data; raise it")
    kind = EncoderDecoder if shape.model == "encoder-decoder" else Transformer
    return kind(shape, choice.name, choice.options, shape.vocab_size or task.num_classes)


def shape_at(spec: ShapeSpec, depth: int) -> ModelSpec:
    """The shape of the model of a spec at a depth."""
    has = ShapeSpec.model_fields.keys() - MODELS[spec.model].lacks  # of those an experiment may have its own defaults
    return ModelSpec.model_validate({name: getattr(spec, name) for name in has} | {"depth": depth})
