"""A training loop that is watched: its learning rate jumps, the watch stops it and goes back to before.

    python watch_plain_loop.py

The run leaves `watch.jsonl`, which `stresstest diagnose watch.jsonl` reads, and a copy from before the break.
"""

import torch
from torch import nn

from stresstest.watch import Watch

NUM_FEATURES, NUM_CLASSES = 16, 4
TEACHER = torch.randn(NUM_FEATURES, NUM_CLASSES, generator=torch.Generator().manual_seed(0))


def main() -> None:
    """Train; at step 200 the learning rate becomes 1000 times as large."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(NUM_FEATURES, 64), nn.ReLU(), nn.Linear(64, NUM_CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    watch = Watch(model, optimizer, on_break="stop", checkpoint="checkpoints", save_every=50)
    for step in range(1000):
        if step == 200:
            optimizer.param_groups[0]["lr"] *= 1000
        x = torch.randn(64, NUM_FEATURES)
        loss = nn.functional.cross_entropy(model(x), (x @ TEACHER).argmax(dim=1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.update(loss, step)
        if watch.should_stop:
            break
    verdict = watch.close()

    print(f"stopped after step {step}: {verdict.outcome} from step {verdict.first_bad_step} on")
    print(f"back at step {watch.restore()}")


if __name__ == "__main__":
    main()
