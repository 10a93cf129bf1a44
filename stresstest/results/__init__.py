"""What was found: records that are stored as JSON, metrics, and the statistics over seeds."""
