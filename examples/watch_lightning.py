"""A Lightning run that is watched: its warm-up ends at a learning rate that is too high, and the watch stops it.

    python watch_lightning.py

Needs `pytorch-lightning`. The state from before the break is a file that torch.load opens.
"""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stresstest.watch.lightning import WatchCallback


class Regression(pl.LightningModule):
    """A small network; its learning rate grows a hundredfold from step 100 to step 150."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 1))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, y = batch
        return nn.functional.mse_loss(self.network(x), y)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        growth = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < 100 else 1.1 ** (step - 100))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": growth, "interval": "step"}}


def main() -> None:
    """Fit, and look at what the watch left."""
    pl.seed_everything(0, verbose=False)
    x = torch.randn(4096, 8)
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True).sin()), batch_size=64, shuffle=True)
    callback = WatchCallback(on_break="stop", checkpoint="checkpoints", save_every=25)
    trainer = pl.Trainer(
        max_epochs=20,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(Regression(), loader)

    verdict = callback.verdict
    print(f"stopped after {trainer.global_step} steps: {verdict}")
    if verdict.checkpoint is not None:
        kept = torch.load(verdict.checkpoint, weights_only=True)
        print(f"kept: step {kept['step']}, {', '.join(kept)}")


if __name__ == "__main__":
    main()
