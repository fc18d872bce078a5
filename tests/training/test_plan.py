"""What is done at which step: the recipe that follows val, from the outside, with bounds made up."""

import math
from itertools import pairwise

import pytest

from bernoulli_diffusion.config import TrainingConfig
from bernoulli_diffusion.training.plan import ANNEAL_SHARE, Plan, Recipe

ERROR = 0.01  # bits, of the difference between two looks


def recipe(steps: int = 10_000, **training) -> Recipe:
    training = {"epochs": steps, "lr_schedule": "adaptive", "warmup_steps": 0, "lr": 1.0} | training
    return Recipe(TrainingConfig(**training), steps_per_epoch=1)


def follow(plan: Recipe, bound, seconds_per_step: float = 0.0, start: int = 0) -> list[tuple]:
    """(step, is best, goes back) of the looks of a run whose bound is a function of the step."""
    looks, step = [], start
    while True:
        now = step * seconds_per_step
        if plan.is_look_due(step, now):
            looks.append((step, *plan.note_look(step, bound(step), ERROR, now)))
        if plan.reason_to_stop(step, now):
            return looks
        step += 1


def turn(looks: list[tuple]) -> int:
    """The step at which it went back to the best weights."""
    [step] = [step for step, _, goes_back in looks if goes_back]
    return step


def test_looks_begin_early_and_are_spaced_geometrically():
    steps = [step for step, *_ in follow(recipe(), lambda step: -step)]
    assert steps[:6] == [0, 20, 25, 32, 40, 50]
    constant = [s for s in steps if s <= 10_000 / (1 + ANNEAL_SHARE)]
    assert max(b / a for a, b in pairwise(constant[1:])) < 1.3
    assert len(steps) < 50


def test_while_val_improves_it_takes_all_steps_and_ends_at_rate_zero():
    plan = recipe()
    looks = follow(plan, lambda step: -step)
    assert turn(looks) == int(10_000 / (1 + ANNEAL_SHARE))
    assert plan.total_steps == pytest.approx(10_000, abs=2)
    assert looks[-1][0] == plan.total_steps
    assert [plan.learning_rate(step) for step in (plan.anneal_from, plan.total_steps)] == [1, 0]


def test_an_overfitted_small_file_ends_soon_and_its_best_moment_is_not_missed():
    plan = recipe()
    looks = follow(plan, lambda step: 300 + abs(step - 100) / 10)
    assert plan.best_step == pytest.approx(100, abs=25)
    assert turn(looks) < 500
    assert plan.total_steps < 600


def test_a_plateau_is_given_time():
    """Flat until step 1,000, as where a rule is found late, then better."""
    plan = recipe()
    follow(plan, lambda step: 10.0 if step < 1000 else 10 - step / 1000)
    assert plan.best_step > 5000


def test_a_plateau_without_end_is_left():
    plan = recipe(100_000)
    follow(plan, lambda step: 10.0)
    assert plan.total_steps < 3000


def test_within_minutes_the_rate_still_falls_to_zero():
    plan = recipe(max_minutes=1)
    looks = follow(plan, lambda step: -step, seconds_per_step=0.1)
    assert turn(looks) == pytest.approx(600 / (1 + ANNEAL_SHARE), abs=2)
    assert plan.learning_rate(599) < 0.02
    assert plan.reason_to_stop(600, 60.0)


def test_patience_is_counted_in_looks():
    plan = recipe(patience=3)
    looks = follow(plan, lambda step: -step if step < 60 else 0)
    assert [is_best for _, is_best, _ in looks if _ < 200][-3:] == [False] * 3
    assert turn(looks) < 120


@pytest.mark.parametrize("steps", [1, 2, 7, 60])
def test_never_more_steps_than_asked_for(steps):
    plan = recipe(steps)
    looks = follow(plan, lambda step: -step)
    assert looks[-1][0] <= steps + 1


def test_the_state_is_all_that_it_remembers():
    one, other = recipe(), recipe()
    follow(one, lambda step: abs(step - 300))
    assert one != other
    other.load(one.state())
    assert one == other


def test_validations_are_spaced_geometrically_unless_their_distance_is_given():
    plan, steps = recipe(), []
    for step in range(2000):
        if plan.is_validation_due(step):
            steps.append(step)
            plan.note(step, math.nan)
    assert steps == [0, 100, 160, 256, 410, 656, 1050, 1680]
    assert [recipe(validate_every_n_epochs=70).is_validation_due(step) for step in (70, 100)] == [
        True,
        False,
    ]


def test_a_plan_never_looks_back():
    plan = Plan(TrainingConfig(epochs=10, lr_schedule="cosine", validate_every_n_epochs=2), 5)
    assert plan.total_steps == 50
    assert [step for step in range(50) if plan.is_validation_due(step)] == [0, 10, 20, 30, 40]
    assert plan.state()["recipe"] == {}


@pytest.mark.parametrize(
    ("decay", "step", "memory"),
    [
        (0.9999, 20_000, 10_000),  # half of the steps so far
        (0.9999, 2_000, 1_000),
        (0.9995, 9_000, 2_000),  # all that was asked for
        (0.9995, 20_000, 2_000),
        (0.9995, 900, 200),
        (0.999, 9_000, 1_000),
        (0.999, 900, 100),  # a ninth
        (0.99, 900, 100),
    ],
)
def test_what_the_averaged_weights_remember(decay, step, memory):
    for plan in (Plan(TrainingConfig(ema_decay=decay), 1), recipe(ema_decay=decay)):
        assert 1 / (1 - plan.averaging_decay(step)) == pytest.approx(memory, rel=0.02)
        assert plan.averaging_decay(10**6) == decay
        assert plan.averaging_decay(0) < 0.5


def test_no_averaging():
    assert Plan(TrainingConfig(ema_decay=0.0), 1).averaging_decay(5) == 0


def test_more_epochs_never_make_a_recipes_rate_jump():
    """Before its rate falls it is constant, and how far it falls does not depend on the epochs."""
    for step in (50, 5000, 9000):
        one, more = recipe(10_000), recipe(40_000)
        follow(one, lambda s: -s)
        more.load(one.state() | ({} if step > one.anneal_from else recipe().state()))
        kept = one if step > one.anneal_from else recipe(10_000)
        assert more.learning_rate(step) == kept.learning_rate(step)
        more.warm_again(step, kept.learning_rate(step))
        assert more.warm_from == 0


@pytest.mark.parametrize(
    ("before", "now", "is_more"),
    [
        ({"max_minutes": 1}, {"max_minutes": 2}, True),
        ({"max_minutes": 1}, {}, True),
        ({"max_minutes": 2}, {"max_minutes": 1}, False),
        ({}, {"max_minutes": 2}, False),
        ({}, {}, False),
    ],
)
def test_more_minutes_make_a_recipes_rate_constant_again(before, now, is_more):
    stopped, plan = recipe(**before), recipe(**now)
    follow(stopped, lambda s: -s)
    plan.load(stopped.state())
    assert plan.learning_rate(9500) < 0.5 * plan.training.lr
    plan.go_on(9500, stopped.training)
    assert (plan.learning_rate(9500) == plan.training.lr) == is_more
    assert plan.is_look_due(9500, 0) or not is_more


def test_the_time_left_knows_of_steps_and_minutes():
    plan = Plan(TrainingConfig(epochs=100), steps_per_epoch=1)
    assert plan.seconds_left(25, 10) == 30
    assert plan.seconds_left(0, 10) is None
    assert plan.seconds_left(100, 10) is None
    plan = Plan(TrainingConfig(epochs=100, max_minutes=0.5), steps_per_epoch=1)
    assert plan.seconds_left(25, 10) == 20
    assert plan.seconds_left(25, 31) == 0
    assert recipe().seconds_left(25, 10) is None  # until the rate falls
