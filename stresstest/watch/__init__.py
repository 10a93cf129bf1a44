"""The rules on a run that is training now: `Watch` for a loop, a callback each for Trainer, Lightning and Keras."""

from stresstest.watch.verdict import Moved as Moved
from stresstest.watch.verdict import TrainingBrokeError as TrainingBrokeError
from stresstest.watch.verdict import Verdict as Verdict
from stresstest.watch.watch import Watch as Watch
