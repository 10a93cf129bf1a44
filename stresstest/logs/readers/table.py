"""Every reader, in the order in which they are asked."""

from __future__ import annotations

from stresstest.logs.readers.base import Reader
from stresstest.logs.readers.database import Database
from stresstest.logs.readers.delimited import Delimited
from stresstest.logs.readers.json_document import JsonDocument
from stresstest.logs.readers.json_lines import JsonLines
from stresstest.logs.readers.mlflow import MetricFiles
from stresstest.logs.readers.notebook import Notebook
from stresstest.logs.readers.stored_run import StoredRun
from stresstest.logs.readers.text import Text
from stresstest.logs.readers.tfevents import EventFiles
from stresstest.logs.readers.trainer_state import TrainerState
from stresstest.logs.readers.wandb_file import WandbFile

READERS: tuple[Reader, ...] = (
    EventFiles(),
    WandbFile(),
    Database(),
    StoredRun(),
    MetricFiles(),
    Notebook(),
    TrainerState(),
    JsonLines(),
    JsonDocument(),
    Delimited(),
    Text(),
)
