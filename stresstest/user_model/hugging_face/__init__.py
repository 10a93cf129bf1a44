"""Models of Hugging Face as factories: from a type, a config, or a folder with weights; never from the network."""

from __future__ import annotations

from stresstest.user_model.hugging_face.feeding import Feed
from stresstest.user_model.hugging_face.load import hugging_face

__all__ = ["Feed", "hugging_face"]
