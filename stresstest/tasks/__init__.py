"""What is learned: data sources, batches that depend on (seed, step) only, reference losses."""
