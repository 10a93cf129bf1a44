"""What a run survives: twins with and without a disturbance."""
