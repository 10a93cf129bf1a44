"""Read a stored result in Python: a metric with its uncertainty, each seed's value, and the findings.

    stresstest lr-range --model own_model.py:build --variant plain,pre-norm --run-dir my-run
    python read_result.py my-run

`stresstest schema result` describes every field, `stresstest list metrics` every metric.
"""

import sys
from pathlib import Path

import stresstest
from stresstest.results.records import Bracket


def main(run: Path) -> None:
    """Print what a run of `stresstest lr-range` found."""
    result = stresstest.load_result(run)
    for row in result.summary:
        lr = row.metrics["max_stable_lr"]
        print(f"{row.variant}, {row.optimizer}: max_stable_lr {in_words(lr.median)}, median of {lr.n} seeds")
        for seed, value in lr.per_seed.items():
            print(f"  seed {seed}: {in_words(value)}")
    for finding in result.findings:
        print(f"{finding.kind}: {finding.text}")


def in_words(value: Bracket) -> str:
    """Between the largest learning rate that trained and the next that did not; an open side was not seen."""
    if value.low is None:
        return "below all that were tried" if value.high is None else f"below {value.high:.2g}"
    return f"at least {value.low:.2g}" if value.high is None else f"{value.low:.2g} to {value.high:.2g}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
