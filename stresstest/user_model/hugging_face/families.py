"""The task families of transformers that are served: how a model of each is named, built and fed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stresstest.registry import Registry

Data = Literal["text", "pairs", "images", "sound"]


@dataclass(frozen=True)
class Family:
    """One family: `auto` builds its models, of the types that `mapping` has; `data` is what it reads.

    `settings` stand where the user says nothing, as those of the built-in models of the same kind.
    """

    name: str
    summary: str
    auto: str
    mapping: str
    data: Data
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where it comes from."""
        return f"transformers.{self.auto}"

    def types(self) -> Mapping[Any, Any]:
        """Config classes of the family with its model classes."""
        from transformers.models.auto import modeling_auto

        found: Mapping[Any, Any] = getattr(modeling_auto, self.mapping)
        return found


# In the order in which one is chosen for a type that has several.
FAMILIES: Registry[Family] = Registry(
    "task of Hugging Face",
    [
        Family(
            "seq2seq",
            "German sentences in, English ones out; or, of other text, text with gaps in, the text out.",
            "AutoModelForSeq2SeqLM",
            "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
            "pairs",
            {"batch_size": 32, "num_steps": 300, "hold_steps": 300, "train_steps": 400},
        ),
        Family(
            "masked",
            "15 % of the tokens are hidden, and told from both sides.",
            "AutoModelForMaskedLM",
            "MODEL_FOR_MASKED_LM_MAPPING",
            "text",
            {"seq_len": 32, "batch_size": 32, "num_steps": 400, "hold_steps": 400, "train_steps": 500},
        ),
        Family(
            "causal",
            "The next token of a text.",
            "AutoModelForCausalLM",
            "MODEL_FOR_CAUSAL_LM_MAPPING",
            "text",
        ),
        Family(
            "image-classification",
            "Which of ten shapes an image shows.",
            "AutoModelForImageClassification",
            "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
            "images",
            {"task": "images", "batch_size": 32},
        ),
        Family(
            "audio-classification",
            "Which of several tones a recording holds, in noise.",
            "AutoModelForAudioClassification",
            "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING",
            "sound",
        ),
        Family(
            "sequence-classification",
            "What was done to a text: nothing, capitals, no spaces, backwards.",
            "AutoModelForSequenceClassification",
            "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
            "text",
        ),
        Family(
            "token-classification",
            "Which tokens have been exchanged for others.",
            "AutoModelForTokenClassification",
            "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
            "text",
        ),
        Family(
            "question-answering",
            "Where in a text the marked words begin and end.",
            "AutoModelForQuestionAnswering",
            "MODEL_FOR_QUESTION_ANSWERING_MAPPING",
            "text",
        ),
    ],
)
_DECODES = "is_decoder"  # of a type that is both: true asks for the causal one


def natural_family(config_class: Any, settings: Mapping[str, Any]) -> Family | None:
    """The family that a model type is made for; `None` where it is in none."""
    if settings.get(_DECODES) is True and config_class in FAMILIES["causal"].types():
        return FAMILIES["causal"]
    return next((family for family in FAMILIES.values() if config_class in family.types()), None)


def family_of_architecture(config_class: Any, architecture: str) -> Family | None:
    """The family that has a class of this name for the type: what a config's `architectures` says."""
    for family in FAMILIES.values():
        if config_class in family.types():
            classes = family.types()[config_class]
            names = [found.__name__ for found in (classes if isinstance(classes, tuple) else (classes,))]
            if architecture in names:
                return family
    return None
