"""AdamW (Loshchilov & Hutter 2019), by torch's own function for a step.

The class torch.optim.AdamW calls the same function, but imports torch's compiler to do so: a second
and more before the first step of every run.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.adamw import adamw

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
UNUSUAL = 3.0  # times the usual norm of the gradient is clipped
MEMORY = 0.99  # decay per step of what is usual
FUSED = ("cpu", "cuda")  # devices with a kernel for the whole step


class AdamW:
    """Lowers a loss by the gradients that backward() leaves in the parameters' grad.

    lr is an attribute, to be set before a step. A parameter without a gradient stays as it is.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float):
        self.parameters, self.lr, self.weight_decay = list(parameters), lr, weight_decay
        self.state = [
            {
                "step": torch.zeros((), device=p.device if p.is_cuda else "cpu"),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
            for p in self.parameters
        ]

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        moved = [
            (p, p.grad, s["exp_avg"], s["exp_avg_sq"], s["step"])
            for p, s in zip(self.parameters, self.state, strict=True)
            if p.grad is not None
        ]
        if not moved:
            return
        parameters, gradients, means, mean_squares, steps = map(list, zip(*moved, strict=True))
        adamw(
            *(parameters, gradients, means, mean_squares, [], steps),
            fused=parameters[0].device.type in FUSED,
            lr=self.lr,
            beta1=BETA_1,
            beta2=BETA_2,
            eps=EPSILON,
            weight_decay=self.weight_decay,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict:
        """The state in the form of torch.optim.AdamW's."""
        group = {
            "lr": self.lr,
            "betas": (BETA_1, BETA_2),
            "eps": EPSILON,
            "weight_decay": self.weight_decay,
            "params": list(range(len(self.parameters))),
        }
        return {"state": dict(enumerate(self.state)), "param_groups": [group]}

    def load_state(self, state: dict[int, dict[str, torch.Tensor]]) -> None:
        """Take over state_dict()["state"], of this class or torch.optim.AdamW's."""
        for index, saved in state.items():
            for name, tensor in self.state[index].items():
                tensor.copy_(saved[name])


class Clip:
    """Scales the gradient of a step down to a largest norm: a given one, or UNUSUAL times the usual one.

    What is usual is an average over the steps so far, of MEMORY once there are enough of them, in which
    a step counts no more than it was clipped to: a spike does not make spikes usual.
    """

    def __init__(self, threshold: float | None, device: torch.device | str = "cpu"):
        self.threshold = threshold
        self.usual = torch.zeros((), device=device)  # stays on the device; 0: nothing is known yet

    @torch.no_grad()
    def __call__(self, parameters: Iterable[nn.Parameter], step: int) -> torch.Tensor:
        """Clip the gradients at a step (from 0). Returns their norm before, a scalar on the device."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return torch.zeros_like(self.usual)
        norm = nn.utils.get_total_norm(gradients)
        most = self.threshold
        if most is None:
            usual = torch.where(self.usual > 0, self.usual, norm)
            most, decay = UNUSUAL * usual, min(MEMORY, (1 + step) / (10 + step))
            self.usual = torch.lerp(torch.minimum(norm, most), usual, decay)
        torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))
        return norm
