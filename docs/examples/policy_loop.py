"""A recurrent policy in eight environments at once: PyTorch beside the exported file.

The cart-poles show positions and hide velocities, so the policy needs a memory. It learns from a
controller that sees everything, is exported to policy.onnx, and then both run whole episodes.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo_onnx import export_step
from zoo_ort import open_module

Memory = tuple[Tensor, ...]  # h and c, [B, 32] each
CONTROLLER = torch.tensor([0.5, 1.0, 20.0, 4.0])  # pushes right where the weighted state is above 0


class CartPoles:
    """Cart-poles (Barto, Sutton and Anderson, 1983) with gymnasium's interface of a vector
    environment; `reset_mask` says which of them begin a new episode."""

    def __init__(self, count: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.state, self.time = np.zeros((count, 4)), np.zeros(count, int)

    def reset(self, *, options: dict) -> tuple:
        begins = options["reset_mask"]
        self.state[begins] = self.rng.uniform(-0.05, 0.05, (begins.sum(), 4))
        self.time[begins] = 0
        return np.float32(self.state[:, ::2]), {}

    def step(self, action: np.ndarray) -> tuple:
        _, speed, angle, turning = self.state.T
        force = (np.where(action == 1, 10, -10) + 0.05 * turning**2 * np.sin(angle)) / 1.1
        inertia = 0.5 * (4 / 3 - 0.1 * np.cos(angle) ** 2 / 1.1)
        turned = (9.8 * np.sin(angle) - np.cos(angle) * force) / inertia
        moved = force - 0.05 * turned * np.cos(angle) / 1.1
        self.state = self.state + 0.02 * np.stack((speed, moved, turning, turned), 1)
        self.time += 1
        terminated = (abs(self.state[:, 0]) > 2.4) | (abs(self.state[:, 2]) > 0.21)
        rewards, truncated = np.ones(len(action)), self.time >= 200
        return np.float32(self.state[:, ::2]), rewards, terminated, truncated, {}


class Policy(nn.Module):
    """From positions [B, 2] to logits of the actions and an estimate of the velocities."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("variance", torch.ones(2))
        self.cell = nn.LSTMCell(2, 32)
        self.action, self.velocity = nn.Linear(32, 2), nn.Linear(32, 2)

    def forward(self, seen: Tensor, memory: Memory) -> tuple[tuple[Tensor, Tensor], Memory]:
        if self.training:  # in evaluation, the running statistics stay as they are
            self.mean.lerp_(seen.mean(0), 0.01)
            self.variance.lerp_((seen - self.mean).square().mean(0), 0.01)
        h, c = self.cell((seen - self.mean) / (self.variance + 1e-4).sqrt(), memory)
        return (self.action(h), self.velocity(h)), (h, c)


def train(policy: Policy, memory: Memory) -> Tensor:
    """Imitates the controller in the policy's own episodes (DAgger). The last observations."""
    envs, optimizer = CartPoles(len(memory[0]), seed=1), torch.optim.Adam(policy.parameters(), 0.01)
    seen, _ = envs.reset(options={"reset_mask": envs.time == 0})
    for _ in range(120):
        losses, memory = [], tuple(leaf.detach() for leaf in memory)
        for _ in range(32):
            (logits, velocity), memory = policy(torch.from_numpy(seen), memory)
            state = torch.from_numpy(np.float32(envs.state))
            losses.append(F.cross_entropy(logits, (state @ CONTROLLER > 0).long()))
            losses.append(F.mse_loss(velocity, state[:, 1::2]))
            _, _, terminated, truncated, _ = envs.step(logits.argmax(1).numpy())
            ends = (terminated | truncated)[:, None]
            seen, _ = envs.reset(options={"reset_mask": ends[:, 0]})
            memory = tuple(leaf * torch.from_numpy(~ends) for leaf in memory)
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    return torch.from_numpy(seen)


def main() -> dict[str, float]:
    torch.manual_seed(0)
    policy, memory = Policy(), (torch.zeros(64, 32), torch.zeros(64, 32))
    observations = train(policy, memory)
    names = {"input_names": ["seen"], "output_names": ["action", "velocity"]}
    export_step(policy.eval(), observations, memory, "policy.onnx", **names)

    stepper, envs = open_module("policy.onnx"), CartPoles(8, seed=2)
    seen, _ = envs.reset(options={"reset_mask": envs.time == 0})
    memory, start = (torch.zeros(8, 32), torch.zeros(8, 32)), stepper.init_state(8)
    state, lengths, differing, largest = start, [], 0, 0.0
    print("step  PyTorch: left, right  the file: left, right")
    for step in range(400):
        with torch.no_grad():
            (logits, _), memory = policy(torch.from_numpy(seen), memory)
        outputs, state = stepper.step({"seen": seen}, state)
        wanted, found = logits.numpy(), outputs["action"]
        differing += int((wanted.argmax(1) != found.argmax(1)).sum())
        largest = max(largest, float(abs(wanted - found).max()))
        if step % 50 == 0:
            print(f"{step:4}", "".join(f"{x:10.5f}" for x in (*wanted[0], *found[0])))
        _, _, terminated, truncated, _ = envs.step(found.argmax(1))
        ends = (terminated | truncated)[:, None]
        lengths += envs.time[ends[:, 0]].tolist()
        seen, _ = envs.reset(options={"reset_mask": ends[:, 0]})
        memory = tuple(leaf * torch.from_numpy(~ends) for leaf in memory)
        state = tuple(np.where(ends, *pair) for pair in zip(start, state, strict=True))
    print(f"{len(lengths)} episodes of {np.mean(lengths):.0f} steps on average")
    print(f"{differing} of {8 * 400} actions differ, logits by at most {largest:.0e}")
    return {"episodes": len(lengths), "differing": differing, "largest": largest}


if __name__ == "__main__":
    result = main()
    raise SystemExit(result["differing"] > 0 or result["largest"] > 1e-4)
