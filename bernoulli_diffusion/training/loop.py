"""The training loop: steps, averaging, clipping, looks and validations in turn. It writes no files.

What is done at which step is for plan.py to say.

fit trains on data in memory; trainer.py keeps a results folder round the same loop.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..config import Config
from ..diffusion import Diffusion
from ..kinds import Batches, Samples, kind_of
from ..noise import derive_seed, seed_torch
from ..system.errors import RunError
from .distributed import ALONE, Processes
from .network import Source, configured_network, live_source, new_diffusion
from .optimizer import AdamW, Clip
from .plan import Plan, Recipe
from .run_folder import fill_defaults
from .shares import Draws, fit_confidence, mean_and_error, mixed
from .validator import Validator

ORDER, STEP, LOOK = 12, 13, 16  # streams of random numbers, of the run's seed; more in network, ...
LOOK_DRAWS = 4096  # (string, time) pairs behind each of a recipe's looks
FLUSH_EVERY = 100  # steps between looks at the losses: a look waits for the device


class Diverged(RunError):
    """The loss or its gradient is not finite."""


@dataclass
class Best:
    """The weights that were best at a look, and what each draw then said of them."""

    weights: dict[str, torch.Tensor]
    averaged_weights: dict[str, torch.Tensor]
    bits: torch.Tensor  # (N,) of shares.Draws


class Loop:
    """Trains diffusion's network on batches; averaged is the same diffusion with averaged weights.

    With several processes each computes its part of every batch, and all hold the same weights.
    """

    def __init__(
        self, diffusion: Diffusion, batches: Batches, config: Config, processes: Processes = ALONE
    ):
        self.diffusion, self.batches, self.processes = diffusion, batches, processes
        self.training, self.draws = config.training, config.model.num_sample_steps
        self.device, model = diffusion.process.alpha.device, diffusion.reverse_model
        copied = copy.deepcopy(model).eval().requires_grad_(False)
        self.averaged = Diffusion(diffusion.process, copied)
        self.together = diffusion  # the same, with gradients averaged over processes
        if processes.size > 1:
            length = batches.batch(0).shape[1]
            self.together = Diffusion(diffusion.process, processes.parallel(model, length))
        self.optimizer = AdamW(
            (p for p in model.parameters() if p.requires_grad),
            lr=self.training.lr,
            weight_decay=self.training.weight_decay,
        )
        self.clip = Clip(self.training.clip_thresh, self.device)
        is_adaptive = self.training.lr_schedule == "adaptive"
        self.plan = (Recipe if is_adaptive else Plan)(self.training, batches.steps_per_epoch)
        self.plan.is_ready = not getattr(model, "trains", True)
        self.best: Best | None = None  # of a recipe, which goes back to it
        self.step = 0  # steps done
        self.validated_at: int | None = None  # the step of the last validation
        self.looked_at: int | None = None  # and of a recipe's last look
        self.losses: list[float] = []  # bits, one an epoch: the mean over its steps
        self.epoch_losses: list[float] = []  # of the steps of the epoch that is under way
        self.last_loss: float | None = None  # bits, of the last step that was looked at
        self._pending: list[torch.Tensor] = []  # (loss, gradient norm) of steps not yet looked at

    def run(
        self,
        validate: Callable[[], object],
        seconds: Callable[[], float],
        before_step: Callable[[], object] = lambda: None,
        look: Callable[[], torch.Tensor] | None = None,
        keep_best: Callable[[], object] = lambda: None,
    ) -> str:
        """Steps and validations in turn, until the plan says that it is enough. Returns why.

        validate: measures the averaged weights and calls note. seconds: time spent, asked after every
        step. look: for a recipe; the bits of the averaged weights on the same draws each time, (N,);
        keep_best is called when they are the best. All of these may raise to end the run. In the end
        a recipe's averaged weights are the best ones. Raises Diverged.
        """
        while True:
            now = seconds()
            reason = self.plan.reason_to_stop(self.step, now)
            if isinstance(self.plan, Recipe) and (self.plan.is_look_due(self.step, now) or reason):
                self.look_at_losses()
                if self.looked_at != self.step and self._note_look(look(), now):
                    keep_best()
                reason = reason or self.plan.reason_to_stop(self.step, now)
                if reason:
                    self.averaged.reverse_model.load_state_dict(self.best.averaged_weights)
            if self.plan.is_validation_due(self.step) or reason:
                if self.validated_at != self.step:
                    self.look_at_losses()
                    validate()
                    reason = reason or self.plan.reason_to_stop(self.step, now)
                if reason:
                    return reason
            before_step()
            self.train_step()
            if self.step % FLUSH_EVERY == 0:
                self.look_at_losses()

    def note(self, bound: float) -> bool:
        """Tell the plan the bound, in bits, that the averaged weights were judged by: are they best?"""
        self.validated_at = self.step
        return self.plan.note(self.step, bound)

    def _note_look(self, bits: torch.Tensor, now: float) -> bool:
        """Tell the recipe what a look saw, and do as it says. Returns whether it saw the best weights."""
        self.looked_at = self.step
        error = mean_and_error(bits - self.best.bits)[1] if self.best else 0.0
        bound = bits.double().mean().item()
        if not math.isfinite(bound):
            raise Diverged(
                f"step {self.step}: the bound is {bound}: the network's output is not finite; try a"
                " smaller training.lr"
            )
        is_best, goes_back = self.plan.note_look(self.step, bound, error, now)
        models = self.diffusion.reverse_model, self.averaged.reverse_model
        if is_best:
            self.best = Best(*(copy.deepcopy(dict(m.state_dict())) for m in models), bits)
        if goes_back:
            models[0].load_state_dict(self.best.weights)
            models[1].load_state_dict(self.best.averaged_weights)
        return is_best

    def forget_best(self) -> None:
        """Of a recipe: from now on weights are judged by another bound."""
        self.best = None
        self.plan.best_bound, self.plan.best_step = math.inf, self.step

    def train_step(self) -> None:
        """One gradient step. All its random numbers are a function of (seed, step)."""
        processes = self.processes
        own = [processes.rank] if processes.rank else []  # numbers of its own for each process
        seed_torch(derive_seed(self.training.seed, STEP, self.step, *own), self.device)
        model = self.diffusion.reverse_model
        self.optimizer.lr = self.plan.learning_rate(self.step)
        x_0 = self.batches.batch(self.step)  # (B, L)
        lower = self.training.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=lower):
            loss = self.together.loss(x_0, self.draws)
        # the mean over processes is that over the batch, also if their parts differ by a row
        loss = loss * (len(x_0) * processes.size / self.batches.batch_size)
        self.optimizer.zero_grad()
        loss.backward()
        norm = self.clip(model.parameters(), self.step)
        self.optimizer.step()
        self._average_weights()
        self._pending.append(torch.stack([loss.detach(), norm.detach()]))
        self.step += 1

    @torch.no_grad()
    def _average_weights(self) -> None:
        """averaged += (1 - decay) (weights - averaged); a short memory at first."""
        decay = self.plan.averaging_decay(self.step)
        raw, averaged = self.diffusion.reverse_model, self.averaged.reverse_model
        pairs = zip(averaged.parameters(), raw.parameters(), strict=True)
        means, values = zip(*(pair for pair in pairs if pair[1].requires_grad), strict=True)
        torch._foreach_lerp_(means, values, 1 - decay)
        for mean, buffer in zip(averaged.buffers(), raw.buffers(), strict=True):
            mean.copy_(buffer)  # running statistics are averages already

    def look_at_losses(self) -> None:
        """Fetch the losses of the last steps from the device. Raises Diverged if one is not finite."""
        if not self._pending:
            return
        rows = self.processes.mean(torch.stack(self._pending)).tolist()
        first_step = self.step - len(rows)
        self._pending = []
        for step, (loss, norm) in enumerate(rows, first_step):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise Diverged(
                    f"step {step + 1}: loss {loss:g}, gradient norm {norm:g}, learning rate"
                    f" {self.plan.learning_rate(step):.3g}; try a smaller training.lr or clip_thresh,"
                    " or more warmup_steps"
                )
            self.last_loss = loss
            self.epoch_losses.append(loss)
            if len(self.epoch_losses) == self.batches.steps_per_epoch:
                self.losses.append(sum(self.epoch_losses) / len(self.epoch_losses))
                self.epoch_losses = []

    def state(self) -> dict:
        """The keys of a checkpoint that are the loop's and its plan's."""
        return {
            "weights": dict(self.diffusion.reverse_model.state_dict()),
            "averaged_weights": dict(self.averaged.reverse_model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "usual_norm": self.clip.usual.item(),
            "step": self.step,
            "epoch_losses": self.epoch_losses,
            **self.plan.state(),
            "best": vars(self.best) if self.best else {},
        }

    def load(self, saved: dict) -> None:
        """Go on from a checkpoint, saved, whose weights have been loaded into the networks already."""
        self.optimizer.load_state(saved["optimizer"]["state"])  # its settings are the config's
        self.clip.usual.fill_(saved["usual_norm"])
        self.step, self.epoch_losses = saved["step"], list(saved["epoch_losses"])
        self.plan.load(saved)
        self.best = Best(**saved["best"]) if saved["best"] else None
        if self.step:
            self.optimizer.lr = self.plan.learning_rate(self.step - 1)  # of the last step


def new_look(loop: Loop, judged_by: Samples, is_new: bool) -> Callable[[], torch.Tensor]:
    """A recipe's looks: the bits of loop's averaged weights on draws of these samples, (N,).

    is_new: whether they are not trained on. Then a look first chooses the network's confidence, if it has
    one: by how much of what it adds to independent bits the bound is best. Of several numbers the first
    is for what training changes, which alone is judged; what the others are for is asked only once.
    """
    seed = derive_seed(loop.training.seed, LOOK)
    process, device = loop.diffusion.process, loop.device
    draws = Draws(process, judged_by, seed, device, LOOK_DRAWS)
    models = loop.diffusion.reverse_model, loop.averaged.reverse_model
    found = dict(models[0].named_buffers()).get("confidence")
    can_doubt = found is not None and found.ndim <= 1  # else it is the network's own affair
    fixed = None  # what the network says at no confidence, and of each part that is not trained

    def set_confidence(confidence: torch.Tensor) -> None:
        for model in models:
            model.confidence.copy_(confidence.view_as(found))

    def logits_at(confidence: torch.Tensor) -> torch.Tensor:
        set_confidence(confidence)
        return draws.logits(loop.averaged)

    def look() -> torch.Tensor:
        nonlocal fixed
        if not can_doubt:
            return draws.bits(draws.logits(loop.averaged)).cpu()
        each = torch.eye(found.numel(), device=device)  # all confidence in one part
        if not is_new:
            return draws.bits(logits_at(each[0])).cpu()
        before = models[1].confidence.flatten().clone()
        if fixed is None:
            fixed = logits_at(0 * each[0]), [logits_at(one) for one in each[1:]]
        independent, others = fixed
        parts = torch.stack([logits_at(each[0]), *others])
        # what is trained is judged by itself: the others may hide for long that it still learns
        trained = fit_confidence(draws, parts[:1], independent, before[:1])
        set_confidence(fit_confidence(draws, parts, independent, before) if others else trained)
        return draws.bits(mixed(parts[:1], independent, trained)).cpu()

    return look


def new_batches(train: Samples, config: Config, device, processes: Processes = ALONE) -> Batches:
    """The batches of a run: those of this process, in the order that the run's seed gives."""
    seed, shard = derive_seed(config.training.seed, ORDER), (processes.rank, processes.size)
    return kind_of(config).Batches(train, config.data.batch_size, seed, device, shard)


def fit(
    train: Samples,
    config: Config,
    val: Samples | None = None,
    *,
    source: Source | None = None,
    device: torch.device | str = "cpu",
) -> Diffusion:
    """A Diffusion trained on data in memory, with averaged weights; with val, its best ones on val.

    It trains as train.py does but for the folder: the same seed gives the same weights.

    >>> x = np.array([[1, 0, 0, 0, 0], [0, 1, 1, 1, 1]] * 50, dtype=np.uint8)  # (N, L)
    >>> config = Config(model=ModelConfig(T=50), training=TrainingConfig(epochs=100))
    >>> diffusion = fit(BitStrings.from_bits(x), config)
    >>> [samples] = sample(diffusion, length=5, rows=range(3), seed=0)  # (3, L)

    config is left as it is. source: the network's file (default: as model.network says, or else the
    kind's own). Raises UserError if the network cannot be built or tried, RunError if training diverges.
    """
    config, device = copy.deepcopy(config), torch.device(device)
    fill_defaults(config, len(train))
    source = source or live_source(None, configured_network(config, is_table=False))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        diffusion = new_diffusion(source, train, config, device)
        loop = Loop(diffusion, new_batches(train, config, device), config)
        validator = Validator(train, val, config, device, ALONE) if val is not None else None
        best = {}

        def validate() -> None:
            if isinstance(loop.plan, Recipe):
                loop.note(math.nan)  # the looks have said all there is to say
            elif validator and loop.note(validator.bounds(loop.averaged)["val"].bits):
                best.update(copy.deepcopy(loop.averaged.reverse_model.state_dict()))

        look = new_look(loop, train if val is None else val, is_new=val is not None)
        start = time.monotonic()
        loop.run(validate, lambda: time.monotonic() - start, look=look)
    if best:
        loop.averaged.reverse_model.load_state_dict(best)
    return loop.averaged
