"""A LightningModule trained by Lightning's own loop."""
