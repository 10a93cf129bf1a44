"""Every reader, in the order in which they are asked."""

from __future__ import annotations

from stresstest.logs.readers.base import Reader
from stresstest.logs.readers.delimited import Delimited
from stresstest.logs.readers.json_document import JsonDocument
from stresstest.logs.readers.json_lines import JsonLines
from stresstest.logs.readers.text import Text
from stresstest.logs.readers.tfevents import EventFiles
from stresstest.logs.readers.trainer_state import TrainerState

READERS: tuple[Reader, ...] = (EventFiles(), TrainerState(), JsonLines(), JsonDocument(), Delimited(), Text())
