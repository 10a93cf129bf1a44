"""What happened in a run: the verdict on each stretch of a log, its spikes, and what moved before."""
