"""The reward model of `weir-bench train` in PyTorch, on the same rows.

usage: pytorch.py FOLDER LOSS    FOLDER was written by `weir-bench train`; LOSS is the held-out cross entropy to reach

Same network (one hidden layer, ReLU, one logit per model), same optimiser (AdamW, same step and decay), same batch size and passes. On
a GPU if there is one. Prints one line of JSON.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn


def main():
    folder, wanted = Path(sys.argv[1]), float(sys.argv[2])
    settings = json.loads((folder / "settings.json").read_text())
    inputs = np.fromfile(folder / "inputs.f32", dtype="<f4").reshape(-1, settings["inputs"])
    rows = np.fromfile(folder / "rows.i32", dtype="<i4").reshape(-1, 3)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(1)
    kept = torch.tensor(rows[:, 2] == 1)
    x, action, quality = torch.tensor(inputs), torch.tensor(rows[:, 0]).long(), torch.tensor(rows[:, 1]).float()
    train = [part[~kept].to(device) for part in (x, action, quality)]
    exam = [part[kept].to(device) for part in (x, action, quality)]
    network = nn.Sequential(
        nn.Linear(settings["inputs"], settings["hidden"]), nn.ReLU(), nn.Linear(settings["hidden"], settings["actions"])
    ).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"])
    loss_of = nn.BCEWithLogitsLoss()

    def loss(part):
        x, action, quality = part
        return loss_of(network(x).gather(1, action[:, None])[:, 0], quality)

    def step(part):
        optimiser.zero_grad(set_to_none=True)
        loss(part).backward()
        optimiser.step()

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()

    count, batch = len(train[0]), settings["batch"]
    step([part[:batch] for part in train])
    wait()
    reached, spent, found = None, 0.0, None
    for _ in range(settings["epochs"]):
        start = time.perf_counter()
        order = torch.randperm(count, device=device)
        for at in range(0, count, batch):
            chosen = order[at : at + batch]
            step([part[chosen] for part in train])
        wait()
        spent += time.perf_counter() - start
        with torch.no_grad():
            found = float(loss(exam))
        if reached is None and found <= wanted:
            reached = spent
    print(
        json.dumps(
            {
                "backend": f"pytorch {torch.__version__} {device.type}",
                "reward_model_s": spent,
                "reward_model_samples_per_s": count * settings["epochs"] / spent,
                "reward_model_log_loss": found,
                "seconds_to_the_same_loss": reached,
            }
        )
    )


main()
