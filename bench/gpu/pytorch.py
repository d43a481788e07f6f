"""The reward model and the policy gradient of `weir-bench train` in PyTorch, on the same rows.

usage: pytorch.py FOLDER LOSS    FOLDER was written by `weir-bench train`; LOSS is the held-out cross entropy to reach

Same networks (one hidden layer, ReLU, an output per model), same optimiser (AdamW, same steps, decay and epsilon), same batch sizes and passes,
same objectives: `learners/src/policy_gradient` says which. On a GPU if there is one. Prints one line of JSON; what the policy is worth
comes from the same requests of known truth.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

# As in learners/src/dr_rewards.rs: folds of the reward models under the policy, and the largest weight of a residual.
FOLDS, WEIGHT_MAX = 5, 50.0
# Corrections are kept if they are better than none by so many standard errors (learners/src/policy_gradient/mod.rs).
STANDARD_ERRORS_MIN = 1.645


def main():
    folder, wanted = Path(sys.argv[1]), float(sys.argv[2])
    settings = json.loads((folder / "settings.json").read_text())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(1)
    torch.set_num_threads(os.cpu_count())
    width, actions = settings["inputs"], settings["actions"]
    numbers = lambda name, kind, columns: torch.tensor(np.fromfile(folder / name, dtype=kind).reshape(-1, columns))
    x, rows = numbers("inputs.f32", "<f4", width), numbers("rows.i32", "<i4", 3)
    kept = rows[:, 2] == 1
    logs = Logs(x, rows[:, 0].long(), rows[:, 1].float(), actions)
    train, exam = logs.at(~kept).to(device), logs.at(kept).to(device)

    # Kernels are loaded at their first use.
    RewardModel(settings, device).pass_over(train.at(torch.arange(min(len(train), settings["batch"]), device=device)))
    model, fitted = RewardModel(settings, device), train.at(split(len(train), settings["validation_share"], device)[0])
    reached, spent, found = None, 0.0, None
    for _ in range(settings["epochs"]):
        spent += timed(device, lambda: model.pass_over(fitted))
        found = model.loss(exam)
        if reached is None and found <= wanted:
            reached = spent

    tried, truth = numbers("tried.f32", "<f4", width).to(device), numbers("truth.f32", "<f4", actions).to(device)
    best_guess = lambda scores: float(truth.gather(1, scores.argmax(1, keepdim=True)).mean())
    policy = Policy(settings, device)
    policy_s = timed(device, lambda: policy.learn(train))
    print(
        json.dumps(
            {
                "backend": f"pytorch {torch.__version__} {device.type}",
                "reward_model_s": spent,
                "reward_model_samples_per_s": len(fitted) * settings["epochs"] / spent,
                "reward_model_log_loss": found,
                "seconds_to_the_same_loss": reached,
                "policy_gradient_s": policy_s,
                "corrections_kept": policy.is_kept,
                "policy_value": best_guess(policy.scores(tried)),
            }
        )
    )


class Logs:
    """Decisions: inputs [rows, inputs], the action taken and its quality [rows]. All actions were as likely."""

    def __init__(self, x, action, quality, actions):
        self.x, self.action, self.quality, self.actions = x, action, quality, actions

    def __len__(self):
        return len(self.x)

    def at(self, places):
        return Logs(self.x[places], self.action[places], self.quality[places], self.actions)

    def to(self, device):
        return Logs(self.x.to(device), self.action.to(device), self.quality.to(device), self.actions)


class Trained:
    """A network with its optimiser."""

    def __init__(self, inputs, settings, step, device):
        self.network = nn.Sequential(
            nn.Linear(inputs, settings["hidden"]), nn.ReLU(), nn.Linear(settings["hidden"], settings["actions"])
        ).to(device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=step["learning_rate"],
            weight_decay=step["weight_decay"],
            eps=settings["epsilon"],
        )

    def step(self, loss):
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def best_of(self, epochs, patience, one_pass, validation_loss):
        """Passes until the validation loss has not fallen for `patience` of them; keeps the best weights."""
        best, waited = (validation_loss(), weights_of(self.network)), 0
        for _ in range(epochs):
            one_pass()
            value = validation_loss()
            best, waited = ((value, weights_of(self.network)), 0) if value < best[0] else (best, waited + 1)
            if waited == patience:
                break
        self.network.load_state_dict(best[1])


class RewardModel(Trained):
    """Quality of each action."""

    def __init__(self, settings, device):
        super().__init__(settings["inputs"], settings, settings, device)
        self.settings, self.device = settings, device

    def cross_entropy(self, logs):
        return cross_entropy(self.network(logs.x).gather(1, logs.action[:, None])[:, 0], logs.quality)

    def pass_over(self, logs):
        for chosen in shuffled(len(logs), self.settings["batch"], self.device):
            self.step(self.cross_entropy(logs.at(chosen)))

    def loss(self, logs):
        with torch.no_grad():
            return float(self.cross_entropy(logs))

    def fit(self, logs):
        fitted, validation = split(len(logs), self.settings["validation_share"], self.device)
        fitted, validation = logs.at(fitted), logs.at(validation)
        one_pass, loss = lambda: self.pass_over(fitted), lambda: self.loss(validation)
        self.best_of(self.settings["epochs"], self.settings["patience"], one_pass, loss)
        return self

    def quality(self, x):
        with torch.no_grad():
            return torch.sigmoid(self.network(x))


class Policy:
    """The reward model's utilities, and corrections learned by a doubly robust policy gradient."""

    def __init__(self, settings, device):
        self.settings, self.own, self.device = settings, settings["policy"], device

    def learn(self, logs):
        self.model = RewardModel(self.settings, self.device).fit(logs)
        self.doubly_robust(logs)
        self.shares = self.trade_offs(len(logs))
        # What is learned on one half is tried on the other, and the other way round; then everything is learned from.
        half = torch.arange(len(logs), device=self.device) % 2 == 0
        gains = torch.zeros(len(logs), device=self.device)
        for here in (half, ~half):
            corrections = self.corrections(logs, places(~here))
            gains[here] = self.gain(corrections, logs, places(here))
        gain, standard_error = gains.mean(), gains.std() / len(gains) ** 0.5
        self.is_kept = bool(gain > STANDARD_ERRORS_MIN * standard_error)
        self.network = self.corrections(logs, places(half | ~half))

    def doubly_robust(self, logs):
        """Guesses of folds that have not seen a decision, and what its observed quality adds to them."""
        fold = torch.arange(len(logs), device=self.device) % FOLDS
        self.guess = torch.zeros(len(logs), logs.actions, device=self.device)
        for k in range(FOLDS):
            model = RewardModel(self.settings, self.device).fit(logs.at(places(fold != k)))
            self.guess[fold == k] = model.quality(logs.x[fold == k])
        taken = self.guess.gather(1, logs.action[:, None])[:, 0]
        residual = min(logs.actions, WEIGHT_MAX) * (logs.quality - taken)
        self.gamma = self.guess.scatter_add(1, logs.action[:, None], residual[:, None])

    def trade_offs(self, rows):
        """Cost's share of the utility, [rows, trade_offs]: the policy's own, 0, and others evenly over the range."""
        others = self.own["trade_offs"] - 1
        shift = torch.rand(rows, 1, device=self.device)
        spread = (torch.arange(others, device=self.device) + shift) / others
        return torch.cat([torch.zeros(rows, 1, device=self.device), spread], 1)

    def value(self, network, logs, uses):
        """Probabilities [uses, actions] and doubly robust values [uses]; a use is a decision under a trade-off."""
        place = uses // self.own["trade_offs"]
        share = self.shares.flatten()[uses][:, None]
        scores = (1 - share) * self.guess[place]
        if network is not None:
            scores = scores + network(torch.cat([logs.x[place], share], 1))
        floor = self.settings["floor"]
        policy = torch.softmax(scores / self.own["temperature"], 1) * (1 - floor) + floor / scores.shape[1]
        return policy, (policy * (1 - share) * self.gamma[place]).sum(1)

    def loss(self, network, logs, uses, rows):
        policy, values = self.value(network, logs, uses)
        spread = ((values - values.mean()) ** 2).mean()
        leash = (policy * ((policy + 1e-6).log() + np.log(logs.actions))).sum(1).mean()
        penalty = self.own["variance_penalty"] * (spread + 1e-12).sqrt() / rows**0.5
        return -values.mean() + penalty + self.own["leash"] * leash

    def corrections(self, logs, decisions):
        own = Trained(self.settings["inputs"] + 1, self.settings, self.own, self.device)
        nn.init.zeros_(own.network[-1].weight)
        nn.init.zeros_(own.network[-1].bias)
        fitted, validation = split(len(decisions), self.settings["validation_share"], self.device)
        fitted, validation = self.uses(decisions[fitted]), self.uses(decisions[validation])

        def one_pass():
            for chosen in shuffled(len(fitted), self.own["batch_rows"], self.device):
                own.step(self.loss(own.network, logs, fitted[chosen], len(decisions)))

        def validation_loss():
            with torch.no_grad():
                return float(self.loss(own.network, logs, validation, len(decisions)))

        own.best_of(self.own["epochs"], self.own["patience"], one_pass, validation_loss)
        return own.network

    def uses(self, decisions):
        every = torch.arange(self.own["trade_offs"], device=self.device)
        return (decisions[:, None] * self.own["trade_offs"] + every).flatten()

    def gain(self, network, logs, decisions):
        with torch.no_grad():
            uses = self.uses(decisions)
            gains = self.value(network, logs, uses)[1] - self.value(None, logs, uses)[1]
            return gains.reshape(len(decisions), -1).mean(1)

    def scores(self, x):
        """What the policy takes the largest of, where only quality counts."""
        scores = self.model.quality(x)
        with torch.no_grad():
            share = torch.zeros(len(x), 1, device=self.device)
            return scores + self.network(torch.cat([x, share], 1)) if self.is_kept else scores


def split(rows, share, device):
    """Places to fit on, and places that say when to stop."""
    order = torch.randperm(rows, device=device)
    return order[int(rows * share) :], order[: int(rows * share)]


def shuffled(rows, batch, device):
    order = torch.randperm(rows, device=device)
    return (order[at : at + batch] for at in range(0, rows, batch))


def places(where):
    return where.nonzero()[:, 0]


def weights_of(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def timed(device, run):
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


main()
