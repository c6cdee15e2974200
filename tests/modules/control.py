"""Policies, controllers and state estimators."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import (
    Case,
    Made,
    flags,
    integers,
    joined,
    made,
    normal,
    repeated,
    uniform,
    zeros,
)

Pair = tuple[Tensor, Tensor]


class Normaliser(nn.Module):
    """Standardises observations with statistics that training has fixed, and clips them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(size))
        self.register_buffer("var", torch.rand(size) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / torch.sqrt(self.var + 1e-8)).clamp(-10, 10)


class LSTMState(NamedTuple):
    h: Tensor
    c: Tensor


class TwoHeads(nn.Module):
    """An LSTM policy with action logits and a value, over normalised observations."""

    def __init__(self) -> None:
        super().__init__()
        self.normaliser = Normaliser(6)
        self.body = nn.Sequential(nn.Linear(6, 32), nn.Tanh())
        self.cell = nn.LSTMCell(32, 24)
        self.actor, self.critic = nn.Linear(24, 4), nn.Linear(24, 1)

    def forward(self, observation: Tensor, state: LSTMState) -> tuple[Pair, LSTMState]:
        h, c = self.cell(self.body(self.normaliser(observation)), state)
        return (self.actor(h), self.critic(h).squeeze(-1)), LSTMState(h, c)


def make_lstm_policy_with_two_heads() -> Made:
    torch.manual_seed(0)
    return made(
        TwoHeads(),
        normal((6,)),
        LSTMState(zeros(24), zeros(24)),
        input_names=["observation"],
        output_names=["logits", "value"],
    )


class RecurrentPPO(nn.Module):
    """An LSTM policy whose state starts again where an episode does; state [layers, B, hidden]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 16)
        self.policy, self.value = nn.Linear(16, 3), nn.Linear(16, 1)

    def forward(self, observation: Tensor, starts: Tensor, state: Pair) -> tuple[Pair, Pair]:
        keep = (1.0 - starts).view(1, -1, 1)
        y, state = self.lstm(observation.unsqueeze(0), (keep * state[0], keep * state[1]))
        y = y.squeeze(0)
        return (F.log_softmax(self.policy(y), -1), self.value(y)), state


def make_recurrent_ppo_with_episode_starts() -> Made:
    torch.manual_seed(0)
    starts = flags((), share=0.1)

    def fresh(rng: Any, batch: int) -> Pair:
        return normal((5,))(rng, batch)[0], starts(rng, batch)[0].float()

    state = (torch.zeros(1, 8, 16), torch.zeros(1, 8, 16))
    return made(RecurrentPPO(), fresh, state, batch_axis=1)


class MaskedGRU(nn.Module):
    """A GRU policy with a bool mask of the environments that were reset."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(5, 16), nn.Linear(16, 3)
        self.initial = nn.Parameter(torch.randn(16) * 0.1)

    def forward(self, observation: Tensor, done: Tensor, h: Tensor) -> Pair:
        h = torch.where(done[:, None], self.initial, h)
        h = self.cell(observation, h)
        return self.head(h), h


def make_gru_policy_with_reset_mask() -> Made:
    torch.manual_seed(0)
    fresh = joined(normal((5,)), flags((), share=0.1))
    return made(MaskedGRU(), fresh, zeros(16), input_names=["observation", "done"])


class DuelingDQN(nn.Module):
    """Dueling Q-values over a GRU, and the greedy action among those that are allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(8, 20)
        self.value, self.advantage = nn.Linear(20, 1), nn.Linear(20, 5)

    def forward(
        self, observation: Tensor, allowed: Tensor, h: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        h = self.cell(observation, h)
        advantage = self.advantage(h)
        q = self.value(h) + advantage - advantage.mean(1, keepdim=True)
        greedy = q.masked_fill(~allowed, float("-inf")).argmax(1)
        return (q, greedy), h


def make_dueling_dqn_with_action_mask() -> Made:
    torch.manual_seed(0)
    fresh = joined(normal((8,)), flags((5,), share=0.7))
    return made(DuelingDQN(), fresh, zeros(20), output_names=["q", "action"])


class GaussianPolicy(nn.Module):
    """Mean and deviation of continuous actions, with a clamped log_std parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.mean = nn.GRUCell(11, 32), nn.Linear(32, 3)
        self.log_std = nn.Parameter(torch.full((3,), -0.5))
        self.register_buffer("scale", torch.tensor([2.0, 1.0, 0.5]))

    def forward(self, observation: Tensor, h: Tensor) -> tuple[Pair, Tensor]:
        h = self.cell(observation, h)
        mean = torch.tanh(self.mean(h)) * self.scale
        std = self.log_std.clamp(-5, 2).exp().expand_as(mean)
        return (mean, std), h


def make_gaussian_policy_with_log_std() -> Made:
    torch.manual_seed(0)
    return made(
        GaussianPolicy(), normal((11,)), zeros(32), output_names=["action_mean", "action_std"]
    )


class SquashedLogProbability(nn.Module):
    """A SAC actor that also returns the log-probability of the action just taken."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4, 16), nn.Linear(16, 4)

    def forward(self, observation: Tensor, action: Tensor, h: Tensor) -> tuple[Pair, Tensor]:
        h = self.cell(observation, h)
        mean, log_std = self.head(h).chunk(2, -1)
        log_std = -1 + 2 * torch.tanh(log_std)
        raw = torch.atanh(action.clamp(-0.999, 0.999))
        log_p = torch.distributions.Normal(mean, log_std.exp(), validate_args=False).log_prob(raw)
        log_p = (log_p - torch.log(1 - action.square() + 1e-6)).sum(-1)
        return (torch.tanh(mean), log_p), h


def make_squashed_actor_with_log_probability() -> Made:
    torch.manual_seed(0)
    fresh = joined(normal((4,)), uniform((2,), low=-0.95, high=0.95))
    return made(SquashedLogProbability(), fresh, zeros(16), inputs=fresh)


class RSSM(nn.Module):
    """Dreamer's world model with probabilities in place of samples: 4 variables of 6 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(24 + 2, 32), nn.LayerNorm(32), nn.SiLU())
        self.cell = nn.GRUCell(32, 32)
        self.prior, self.posterior = nn.Linear(32, 24), nn.Linear(32 + 10, 24)
        self.reward, self.decoder = nn.Linear(56, 1), nn.Linear(56, 10)

    def forward(
        self, embedding: Tensor, action: Tensor, state: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        deter = self.cell(self.mix(torch.cat((state["stoch"], action), -1)), state["deter"])
        prior = self._probabilities(self.prior(deter))
        stoch = self._probabilities(self.posterior(torch.cat((deter, embedding), -1)))
        features = torch.cat((deter, stoch), -1)
        divergence = (stoch * (stoch.log() - prior.log())).sum(-1)
        outputs = {
            "reward": self.reward(features).squeeze(-1),
            "image": self.decoder(features),
            "divergence": divergence,
        }
        return outputs, {"deter": deter, "stoch": stoch}

    def _probabilities(self, logits: Tensor) -> Tensor:
        unimix = 0.99 * logits.view(-1, 4, 6).softmax(-1) + 0.01 / 6
        return unimix.flatten(1)


def make_rssm_without_sampling() -> Made:
    torch.manual_seed(0)
    return made(RSSM(), normal((10,), (2,)), {"deter": zeros(32), "stoch": zeros(24)})


class PIDState(NamedTuple):
    integral: Tensor  # [B]
    error: Tensor  # [B]


class PID(nn.Module):
    """A PID controller whose integral is clamped; one loop a row."""

    def __init__(self, kp: float, ki: float, kd: float, dt: float = 0.01) -> None:
        super().__init__()
        self.kp, self.ki, self.kd, self.dt = kp, ki, kd, dt

    def forward(
        self, setpoint: Tensor, measurement: Tensor, state: PIDState
    ) -> tuple[Tensor, PIDState]:
        error = setpoint - measurement
        integral = (state.integral + error * self.dt).clamp(-1, 1)
        slope = (error - state.error) / self.dt
        return self.kp * error + self.ki * integral + self.kd * slope, PIDState(integral, error)


def make_pid_with_integrator_clamp() -> Made:
    fresh = normal((), (), mean=20, spread=2)
    state = PIDState(zeros(), zeros())
    return made(
        PID(2.0, 0.5, 0.02),
        fresh,
        state,
        input_names=["setpoint", "measurement"],
        output_names=["drive"],
    )


class BackCalculation(nn.Module):
    """A PI controller for three axes with saturation, back-calculation and a filtered setpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gains", torch.tensor([[1.2, 0.8, 2.0], [0.4, 0.3, 0.9]]))
        self.register_buffer("limits", torch.tensor([1.0, 0.5, 2.0]))

    def forward(
        self, setpoint: Tensor, measurement: Tensor, state: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        target = state["target"] + 0.1 * (setpoint - state["target"])
        error = target - measurement
        wanted = self.gains[0] * error + state["integral"]
        drive = torch.minimum(torch.maximum(wanted, -self.limits), self.limits)
        integral = state["integral"] + 0.02 * (self.gains[1] * error + (drive - wanted) / 0.5)
        outputs = {"drive": drive, "saturated": drive != wanted}
        return outputs, {"target": target, "integral": integral}


def make_pi_with_back_calculation() -> Made:
    return made(BackCalculation(), normal((3,), (3,)), {"target": zeros(3), "integral": zeros(3)})


class FixedGain(nn.Module):
    """A steady-state Kalman filter of a cart: position, speed, angle, rate."""

    def __init__(self) -> None:
        super().__init__()
        a = torch.eye(4) + 0.02 * torch.diag(torch.tensor([1.0, 0.0, 1.0]), 1)
        self.register_buffer("A", a)
        self.register_buffer("B", torch.tensor([[0.0], [0.02], [0.0], [-0.03]]))
        self.register_buffer("C", torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0]]))
        gain = torch.tensor([[0.3, 0.0], [0.9, 0.1], [0.0, 0.4], [0.1, 1.2]])
        self.register_buffer("L", gain)

    def forward(self, force: Tensor, measured: Tensor, x: Tensor) -> Pair:
        predicted = x @ self.A.T + force @ self.B.T
        innovation = measured - predicted @ self.C.T
        x = predicted + innovation @ self.L.T
        return innovation, x


def make_kalman_filter_with_fixed_gain() -> Made:
    return made(FixedGain(), normal((1,), (2,), spread=0.3), zeros(4))


class Covariance(NamedTuple):
    mean: Tensor  # [B, 2]
    covariance: Tensor  # [B, 2, 2]


class ConstantVelocity(nn.Module):
    """A Kalman filter of position and velocity, with its covariance in the state."""

    def __init__(self, dt: float = 0.1) -> None:
        super().__init__()
        self.register_buffer("F", torch.tensor([[1.0, dt], [0.0, 1.0]]))
        self.register_buffer("Q", 0.1 * torch.tensor([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]]))
        self.log_noise = nn.Parameter(torch.tensor(-1.0))

    def forward(self, position: Tensor, state: Covariance) -> tuple[Pair, Covariance]:
        mean = state.mean @ self.F.T
        p = self.F @ state.covariance @ self.F.T + self.Q
        s = p[:, 0, 0] + self.log_noise.exp()
        gain = p[:, :, 0] / s[:, None]
        surprise = position - mean[:, 0]
        mean = mean + gain * surprise[:, None]
        p = p - gain[:, :, None] * p[:, :1, :]
        likelihood = -0.5 * (surprise.square() / s + s.log())
        return (mean, likelihood), Covariance(mean, p)


def make_kalman_filter_with_covariance() -> Made:
    torch.manual_seed(0)
    return made(
        ConstantVelocity(),
        normal((), mean=3),
        Covariance(zeros(2), repeated(torch.eye(2) * 10)),
    )


def inverse(m: Tensor) -> Tensor:
    """Of 2×2 matrices [B, 2, 2], by hand."""
    a, b, c, d = m[:, 0, 0], m[:, 0, 1], m[:, 1, 0], m[:, 1, 1]
    adjugate = torch.stack((torch.stack((d, -b), -1), torch.stack((-c, a), -1)), -2)
    return adjugate / (a * d - b * c)[:, None, None]


class Tracker(nn.Module):
    """Tracks a point in the plane: a 2×2 innovation inverse and Joseph's form of the update."""

    def __init__(self, dt: float = 0.2) -> None:
        super().__init__()
        f = torch.eye(4)
        f[0, 2] = f[1, 3] = dt
        self.register_buffer("F", f)
        self.register_buffer("H", torch.eye(4)[:2])
        self.register_buffer("Q", torch.diag(torch.tensor([0.01, 0.01, 0.05, 0.05])))
        self.register_buffer("R", torch.tensor([[0.5, 0.1], [0.1, 0.4]]))

    def forward(self, measured: Tensor, state: dict[str, Tensor]) -> tuple[Pair, dict[str, Tensor]]:
        x = torch.einsum("ij,bj->bi", self.F, state["x"])
        p = self.F @ state["P"] @ self.F.mT + self.Q
        residual = measured - x @ self.H.T
        s = inverse(self.H @ p @ self.H.T + self.R)
        gain = p @ self.H.T @ s
        x = x + torch.bmm(gain, residual.unsqueeze(-1)).squeeze(-1)
        rest = torch.eye(4) - gain @ self.H
        p = rest @ p @ rest.transpose(1, 2) + gain @ self.R @ gain.transpose(1, 2)
        distance = torch.einsum("bi,bij,bj->b", residual, s, residual).clamp(min=0).sqrt()
        return (x[:, :2], distance), {"x": x, "P": p}


def make_kalman_tracker_with_two_by_two_inverse() -> Made:
    return made(Tracker(), normal((2,), spread=3), {"x": zeros(4), "P": repeated(torch.eye(4) * 5)})


class KalmanNet(nn.Module):
    """A Kalman filter whose gain a GRU computes from the innovation (KalmanNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("F", torch.tensor([[0.97, 0.1, 0.0], [-0.1, 0.97, 0.1], [0, 0, 0.9]]))
        self.register_buffer("H", torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]))
        self.cell, self.gain = nn.GRUCell(5, 16), nn.Linear(16, 6)

    def forward(
        self, measured: Tensor, state: tuple[Tensor, Pair]
    ) -> tuple[Tensor, tuple[Tensor, Pair]]:
        h, (x, before) = state
        predicted = x @ self.F.T
        innovation = F.normalize(measured - predicted @ self.H.T, dim=-1)
        h = self.cell(torch.cat((innovation, F.normalize(x - before, dim=-1)), -1), h)
        gain = 0.3 * torch.sigmoid(self.gain(h)).view(-1, 3, 2)
        after = predicted + (gain @ (measured - predicted @ self.H.T)[..., None])[..., 0]
        return after, (h, (after, predicted))


def make_kalman_filter_with_learned_gain() -> Made:
    torch.manual_seed(0)
    return made(KalmanNet(), normal((2,)), (zeros(16), (zeros(3), zeros(3))))


class PendulumEKF(nn.Module):
    """An extended Kalman filter of a pendulum that measures the sine of its angle."""

    def __init__(self, dt: float = 0.05) -> None:
        super().__init__()
        self.dt = dt
        self.register_buffer("Q", torch.diag(torch.tensor([1e-4, 1e-2])))

    def forward(self, torque: Tensor, measured: Tensor, state: Covariance) -> Any:
        angle, rate = state.mean.unbind(-1)
        one = torch.ones_like(angle)
        jacobian = torch.stack(
            (one, self.dt * one, -9.81 * self.dt * angle.cos(), (1 - 0.5 * self.dt) * one), -1
        ).view(-1, 2, 2)
        rate, angle = (
            rate + self.dt * (torque - 9.81 * angle.sin() - 0.5 * rate),
            angle + self.dt * rate,
        )
        p = jacobian @ state.covariance @ jacobian.mT + self.Q
        h = torch.stack((angle.cos(), torch.zeros_like(angle)), -1)
        ph = torch.einsum("bij,bj->bi", p, h)
        gain = ph / ((ph * h).sum(-1) + 0.2)[:, None]
        mean = torch.stack((angle, rate), -1) + gain * (measured - angle.sin())[:, None]
        p = p - gain[:, :, None] * ph[:, None, :]
        p = 0.5 * (p + p.mT)
        return mean, Covariance(mean, p)


def make_extended_kalman_filter_of_a_pendulum() -> Made:
    fresh = joined(normal((), spread=0.5), uniform((), low=-0.3, high=0.3))
    return made(PendulumEKF(), fresh, Covariance(zeros(2), repeated(torch.eye(2))), inputs=fresh)


class Complementary(nn.Module):
    """Pitch and roll from an accelerometer and a gyroscope, by a complementary filter."""

    def forward(self, acceleration: Tensor, rates: Tensor, angles: Tensor) -> Pair:
        ax, ay, az = acceleration.unbind(-1)
        roll = torch.atan2(ay, az)
        pitch = torch.atan2(-ax, torch.hypot(ay, az))
        angles = 0.98 * (angles + rates * 0.01) + 0.02 * torch.stack((pitch, roll), -1)
        return torch.rad2deg(angles), angles


def make_complementary_filter() -> Made:
    gravity = torch.tensor([0.0, 0.0, 9.81])

    def fresh(rng: Any, batch: int) -> Pair:
        acceleration, rates = normal((3,), (2,))(rng, batch)
        return acceleration + gravity, rates

    return made(Complementary(), fresh, zeros(2))


class AlphaBeta(nn.Module):
    """An alpha-beta filter with the time since the last measurement."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha, self.beta = 0.5, 0.1

    def forward(self, measured: Tensor, elapsed: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        position, speed = state
        position = position + elapsed * speed
        residual = measured - position
        position = position + self.alpha * residual
        speed = speed + self.beta * residual / elapsed
        return position, (position, speed)


def make_alpha_beta_filter() -> Made:
    fresh = joined(normal((2,), mean=5), uniform((1,), low=0.08, high=0.12))
    return made(AlphaBeta(), fresh, (zeros(2), zeros(2)))


class ModelPredictive(nn.Module):
    """Three projected gradient steps over five moves ahead, warm-started by the last plan."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("A", torch.tensor([[1.0, 0.1], [0.0, 0.95]]))
        self.register_buffer("B", torch.tensor([[0.005], [0.1]]))

    def forward(self, x: Tensor, target: Tensor, plan: Tensor) -> Pair:
        plan = torch.cat((plan[:, 1:], plan[:, -1:]), 1)
        for _ in range(3):
            trajectory = [x]
            for t in range(5):
                trajectory.append(trajectory[-1] @ self.A.T + plan[:, t] @ self.B.T)
            adjoint = torch.zeros_like(x)
            gradients = []
            for t in reversed(range(5)):
                adjoint = adjoint + 2 * (trajectory[t + 1] - target)
                gradients.insert(0, adjoint @ self.B + 0.02 * plan[:, t])
                adjoint = adjoint @ self.A
            plan = (plan - 0.5 * torch.stack(gradients, 1)).clamp(-1, 1)
        return plan[:, 0], plan


def make_model_predictive_controller() -> Made:
    return made(ModelPredictive(), normal((2,), (2,)), zeros(5, 1))


class OptionCritic(nn.Module):
    """Keeps an option until its termination probability passes one half; option int64 [B]."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.options = nn.GRUCell(6, 16), nn.Linear(16, 4)
        self.termination = nn.Linear(16, 4)
        self.policies = nn.Parameter(torch.randn(4, 16, 3) * 0.3)

    def forward(
        self, observation: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h = self.cell(observation, state[0])
        ends = self.termination(h).sigmoid().gather(1, state[1][:, None]).squeeze(1) > 0.5
        option = torch.where(ends, self.options(h).argmax(-1), state[1])
        logits = torch.bmm(h[:, None], self.policies[option]).squeeze(1)
        return logits, (h, option)


def make_option_critic() -> Made:
    torch.manual_seed(0)
    state = (zeros(16), zeros(dtype=torch.int64))
    return made(OptionCritic(), normal((6,)), state, double=False)


class FrameStack(nn.Module):
    """A convolutional Q-network over the last four frames, kept as uint8."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 8, 4, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten()
        )
        self.q = nn.Linear(8 * 3 * 3, 6)

    def forward(self, frame: Tensor, frames: Tensor) -> Pair:
        frames = torch.cat((frames[:, 1:], frame.unsqueeze(1)), 1)
        return self.q(self.body(frames.float() / 255)), frames


def make_frame_stack_dqn() -> Made:
    torch.manual_seed(0)
    fresh = integers((12, 12), high=256, dtype=torch.uint8)
    return made(FrameStack(), fresh, zeros(4, 12, 12, dtype=torch.uint8))


class RewardState(NamedTuple):
    returns: Tensor  # [B]
    mean: Tensor  # [B]
    m2: Tensor  # [B]
    count: Tensor  # [B], int64


class RewardScaler(nn.Module):
    """Divides rewards by the running deviation of the discounted return."""

    def forward(self, reward: Tensor, done: Tensor, state: RewardState) -> Any:
        returns = 0.99 * state.returns + reward
        count = state.count + 1
        delta = returns - state.mean
        mean = state.mean + delta / count
        m2 = state.m2 + delta * (returns - mean)
        deviation = torch.sqrt(m2 / count + 1e-8)
        scaled = (reward / deviation).clamp(-10, 10)
        returns = returns.masked_fill(done, 0)
        return scaled, RewardState(returns, mean, m2, count)


def make_reward_scaler() -> Made:
    fresh = joined(normal((), mean=0.5), flags((), share=0.05))
    state = RewardState(zeros(), zeros(), zeros(), zeros(dtype=torch.int64))
    return made(RewardScaler(), fresh, state)


class PreviousAction(nn.Module):
    """A meta-learner (RL²) that feeds its own last action and the reward back to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4 + 5 + 1, 24), nn.Linear(24, 5)

    def forward(self, observation: Tensor, reward: Tensor, state: dict[str, Tensor]) -> Any:
        last = F.one_hot(state["action"], 5).to(observation.dtype)
        h = self.cell(torch.cat((observation, last, reward[:, None]), -1), state["h"])
        logits = self.head(h)
        action = logits.argmax(-1)
        return {"action": action, "logits": logits}, {"h": h, "action": action}


def make_policy_with_previous_action() -> Made:
    torch.manual_seed(0)
    state = {"h": zeros(24), "action": zeros(dtype=torch.int64)}
    return made(PreviousAction(), normal((4,), ()), state, double=False)


class ActionRepeat(nn.Module):
    """Decides every fourth step and holds the action between."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(4, 16), nn.ELU(), nn.Linear(16, 2), nn.Tanh())

    def forward(self, observation: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        action, step = state
        decides = (step % 4 == 0).unsqueeze(-1)
        action = torch.where(decides, self.policy(observation), action)
        return action, (action, step + 1)


def make_action_repeat() -> Made:
    torch.manual_seed(0)
    return made(ActionRepeat(), normal((4,)), (zeros(2), zeros(dtype=torch.int32)))


class GainSchedule(nn.Module):
    """A PI controller whose gains come from a table of speeds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("edges", torch.tensor([5.0, 15.0, 30.0]))
        table = torch.tensor([[3.0, 0.9], [2.0, 0.6], [1.2, 0.3], [0.7, 0.1]])
        self.register_buffer("table", table)

    def forward(self, speed: Tensor, error: Tensor, integral: Tensor) -> Pair:
        band = (speed[:, None] >= self.edges).sum(1)
        gains = self.table[band]
        integral = (0.999 * integral + 0.05 * error).clamp(-2, 2)
        return gains[:, 0] * error + gains[:, 1] * integral, integral


def make_gain_schedule() -> Made:
    fresh = joined(uniform((), low=0, high=40), normal(()))
    return made(GainSchedule(), fresh, zeros())


class SlewRate(nn.Module):
    """Limits how fast a command rises and falls, within limits given with each command."""

    def forward(self, command: Tensor, rise: Tensor, fall: Tensor, last: Tensor) -> Pair:
        last = torch.clamp(command, last - fall, last + rise)
        return last, last


def make_slew_rate_limiter() -> Made:
    fresh = joined(normal((3,), spread=4), uniform((3,), (3,), low=0.1, high=0.5))
    return made(SlewRate(), fresh, zeros(3), input_names=["command", "rise", "fall"])


class ParticleFilter(nn.Module):
    """Sixteen particles in one dimension, with systematic resampling at fixed offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offsets", (torch.arange(16) + 0.5) / 16)
        self.register_buffer("spread", torch.linspace(-0.2, 0.2, 16))

    def forward(self, moved: Tensor, measured: Tensor, particles: Tensor) -> Pair:
        particles = particles + moved[:, None] + self.spread
        weights = torch.softmax(-0.5 * ((measured[:, None] - particles) / 0.5).square(), -1)
        estimate = (weights * particles).sum(-1)
        below = weights.cumsum(-1)[:, None, :] < self.offsets[None, :, None]
        chosen = below.sum(-1).clamp(max=15)
        return estimate, particles.gather(1, chosen)


def make_particle_filter() -> Made:
    fresh = normal((), (), spread=0.3)
    state = repeated(torch.linspace(-2, 2, 16))
    return made(ParticleFilter(), fresh, state, double=False)


class SharedMessages(nn.Module):
    """Agents, one a row, that hear the mean of the others' messages (CommNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.message, self.head = (
            nn.GRUCell(4 + 8, 16),
            nn.Linear(16, 8),
            nn.Linear(16, 3),
        )

    def forward(self, observation: Tensor, h: Tensor) -> Pair:
        messages = self.message(h)
        heard = (messages.sum(0, keepdim=True) - messages) / h.shape[0]
        h = self.cell(torch.cat((observation, heard), -1), h)
        return self.head(h), h


def make_agents_that_share_messages() -> Made:
    torch.manual_seed(0)
    return made(SharedMessages(), normal((4,)), zeros(16), independent_rows=False)


class SmithPredictor(nn.Module):
    """A controller for a plant with dead time: it delays its own model by six steps."""

    def forward(self, setpoint: Tensor, measured: Tensor, state: dict[str, Tensor]) -> Any:
        delayed = state["queue"][:, 0]
        error = setpoint - (measured - delayed + state["model"])
        integral = (0.99 * state["integral"] + 0.05 * error).clamp(-5, 5)
        drive = 0.8 * error + integral
        model = 0.9 * state["model"] + 0.1 * drive
        queue = torch.cat((state["queue"][:, 1:], model[:, None]), 1)
        return drive, {"model": model, "queue": queue, "integral": integral}


def make_smith_predictor() -> Made:
    state = {"model": zeros(), "queue": zeros(6), "integral": zeros()}
    return made(SmithPredictor(), normal((), ()), state)


class CentralPattern(nn.Module):
    """Four coupled phase oscillators that walk a robot; phases in [0, 2π)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("lags", torch.tensor([0.0, 3.14159, 1.5708, 4.7124]))

    def forward(self, frequency: Tensor, phases: Tensor) -> Pair:
        gaps = phases[:, None, :] - phases[:, :, None]
        pull = torch.sin(gaps - (self.lags[None, :] - self.lags[:, None])).sum(-1)
        speed = 6.2832 * frequency[:, None] + 2.0 * pull
        phases = torch.remainder(phases + 0.01 * speed, 6.2832)
        return torch.stack((phases.cos(), phases.sin().relu()), -1), phases


def make_central_pattern_generator() -> Made:
    fresh = uniform((), low=0.5, high=2)
    return made(CentralPattern(), fresh, repeated([0.0, 1.0, 2.0, 3.0]), double=False)


CASES = [
    Case(make_lstm_policy_with_two_heads),
    Case(make_recurrent_ppo_with_episode_starts),
    Case(make_gru_policy_with_reset_mask),
    Case(make_dueling_dqn_with_action_mask),
    Case(make_gaussian_policy_with_log_std),
    Case(make_squashed_actor_with_log_probability),
    Case(make_rssm_without_sampling),
    Case(make_pid_with_integrator_clamp),
    Case(make_pi_with_back_calculation),
    Case(make_kalman_filter_with_fixed_gain),
    Case(make_kalman_filter_with_covariance),
    Case(make_kalman_tracker_with_two_by_two_inverse),
    Case(make_kalman_filter_with_learned_gain),
    Case(make_extended_kalman_filter_of_a_pendulum),
    Case(make_complementary_filter),
    Case(make_alpha_beta_filter),
    Case(make_model_predictive_controller),
    Case(make_option_critic),
    Case(make_frame_stack_dqn),
    Case(make_reward_scaler),
    Case(make_policy_with_previous_action),
    Case(make_action_repeat),
    Case(make_gain_schedule),
    Case(make_slew_rate_limiter),
    Case(make_particle_filter),
    Case(make_agents_that_share_messages),
    Case(make_smith_predictor),
    Case(make_central_pattern_generator),
]
