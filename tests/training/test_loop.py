import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from vfscreen.errors import InputError
from vfscreen.training.loop import Plan, checkpoint_path, fit


def plan(out, **changes):
    return replace(Plan(out, steps=6, seed=3, device="cpu", workers=0, save_every=3, log_every=2), **changes)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


def make(seed, step):
    rng = np.random.default_rng([seed, step])
    x = rng.normal(size=(16, 4)).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(x @ np.array([[1], [-2], [0.5], [3]], np.float32))


def loss(model, batch):
    error = ((model(batch[0]) - batch[1]) ** 2).mean()
    return error, {"error": float(error.detach())}


class Interrupted(Exception):
    pass


def interrupted_at(step):
    """A loss that stops the training at this call, as a night that ends does."""
    calls = iter(range(step))

    def stops(model, batch):
        if next(calls, None) is None:
            raise Interrupted
        return loss(model, batch)

    return stops


def weights(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def assert_equal_weights(a, b):
    for name, value in weights(a).items():
        np.testing.assert_array_equal(value, weights(b)[name], err_msg=name)


def learning_curve(out):
    with (out / "learning_curve.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path, stop):
    once = fit(network(), make, loss, plan(tmp_path / "once"))
    with pytest.raises(Interrupted):
        fit(network(), make, interrupted_at(stop), plan(tmp_path / "twice"))
    twice = fit(network(), make, loss, plan(tmp_path / "twice"))
    assert_equal_weights(once, twice)


def test_steps_that_were_saved_are_not_repeated(tmp_path):
    with pytest.raises(Interrupted):
        fit(network(), make, interrupted_at(5), plan(tmp_path))
    seen = []
    fit(network(), lambda seed, step: seen.append(step) or make(seed, step), loss, plan(tmp_path))
    assert seen == [3, 4, 5]


def test_a_finished_training_is_left_alone(tmp_path):
    done = fit(network(), make, loss, plan(tmp_path))
    again = fit(network(), make, interrupted_at(0), plan(tmp_path))
    assert_equal_weights(done, again)


def test_another_seed_does_not_go_on_from_this_checkpoint(tmp_path):
    fit(network(), make, loss, plan(tmp_path))
    with pytest.raises(InputError, match="seed 3, not 4"):
        fit(network(), make, loss, plan(tmp_path, seed=4))


def test_a_training_that_has_gone_further_is_not_called_shorter(tmp_path):
    fit(network(), make, loss, plan(tmp_path))
    with pytest.raises(InputError, match="6 steps already, more than the 5"):
        fit(network(), make, loss, plan(tmp_path, steps=5))


def test_the_batches_of_a_training_come_from_its_seed(tmp_path):
    a = fit(network(), make, loss, plan(tmp_path / "a"))
    b = fit(network(), make, loss, plan(tmp_path / "b"))
    c = fit(network(), make, loss, plan(tmp_path / "c", seed=4))
    assert_equal_weights(a, b)
    assert not np.array_equal(a[0].weight.detach(), c[0].weight.detach())


def test_workers_give_the_batches_of_the_main_process(tmp_path):
    a = fit(network(), make, loss, plan(tmp_path / "a"))
    b = fit(network(), make, loss, plan(tmp_path / "b", workers=1))
    assert_equal_weights(a, b)


def test_the_learning_curve_shows_loss_and_figures(tmp_path):
    fit(network(), make, loss, plan(tmp_path))
    rows = learning_curve(tmp_path)
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    assert rows[0].keys() == {"step", "seconds", "loss", "error"}
    assert float(rows[0]["loss"]) == pytest.approx(float(rows[0]["error"]), rel=1e-3)


def test_training_lowers_the_loss(tmp_path):
    fit(network(), make, loss, plan(tmp_path, steps=120, log_every=20, save_every=120, peak_rate=3e-2))
    losses = [float(row["loss"]) for row in learning_curve(tmp_path)]
    assert losses[-1] < 0.3 * losses[0]


def test_the_checkpoint_holds_only_tensors_and_numbers(tmp_path):
    fit(network(), make, loss, plan(tmp_path))
    state = torch.load(checkpoint_path(tmp_path), weights_only=True)
    assert (state["step"], state["seed"]) == (6, 3)
    assert not list(tmp_path.glob("*.tmp"))


def test_the_rate_warms_up_and_falls_to_a_hundredth(tmp_path):
    thousand = plan(tmp_path, steps=1000)
    rates = [thousand.rate(step) for step in range(1001)]
    assert rates[0] == pytest.approx(2e-5)
    assert max(rates) == pytest.approx(2e-3)
    assert np.argmax(rates) in (99, 100)
    assert rates[-1] == pytest.approx(2e-5)
    assert (np.diff(rates[100:]) <= 0).all()
