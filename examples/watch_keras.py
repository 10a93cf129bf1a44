"""A Keras run that is watched: a schedule raises its learning rate too far, and the watch stops it.

    python watch_keras.py

Needs `keras` 3; it runs on torch.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch

from stresstest.watch.keras import WatchCallback


def main() -> None:
    """Fit, and look at what the watch left."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(4096, 8)).astype("float32")
    y = np.sin(x.sum(axis=1, keepdims=True))
    model = keras.Sequential([keras.layers.Dense(64, activation="tanh"), keras.layers.Dense(1)])
    steep = keras.optimizers.schedules.PiecewiseConstantDecay([150], [0.05, 20.0])
    model.compile(optimizer=keras.optimizers.SGD(steep), loss="mse")

    callback = WatchCallback(on_break="stop", checkpoint="checkpoints", save_every=25)
    model.fit(x, y, batch_size=64, epochs=20, verbose=0, callbacks=[callback])

    verdict = callback.verdict
    print(f"stopped: {verdict}")
    if verdict.checkpoint is not None:
        kept = torch.load(verdict.checkpoint, weights_only=True)
        print(f"kept: step {kept['step']}, {', '.join(kept)}")


if __name__ == "__main__":
    main()
