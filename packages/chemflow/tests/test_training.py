"""The trainer: a stopped run goes on bit for bit."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from chemflow.training import FILE, Losses, Options, Task, Trainer
from torch import nn


class Line(Task):
    """Fits a line to noise that is drawn anew at each update."""

    def __init__(self, size: int = 40) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.size = size
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))
        self.x = torch.randn(size, 3)
        self.seen: list[list[int]] = []

    def loss(self, rows, generator, share):
        self.seen.append(rows.tolist())
        noise = torch.randn(len(rows), 1, generator=generator)
        y = self.net(self.x[rows])
        return Losses(
            (y - self.x[rows, :1] - 0.1 * noise).square().mean(), {"share": y.new_tensor(share)}
        )


def options(**changes: Any) -> Options:
    return replace(Options(3, 8, average=0.9, clip=1.0, seed=5), **changes)


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    whole = Line()
    Trainer(whole, options()).run()
    first = Trainer(Line(), options(), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        first.run(lambda p: interrupt() if p.update == 7 else None)
    second = Line()
    trainer = Trainer(second, options(), tmp_path)
    assert trainer.update == 7
    trainer.run()
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    assert not second.training
    # A run that is done is not done again.
    assert not list(Trainer(Line(), options(), tmp_path).steps())


def test_an_update_that_was_cut_in_two_is_not_kept(tmp_path):
    whole, cut = Line(), Line()
    Trainer(whole, options()).run()
    trainer = Trainer(cut, options(), tmp_path, save_every=0.0)

    def dies(*_):
        # After the statistics of batch normalisation have moved.
        if trainer.update == 7:
            interrupt()

    hook = cut.net.register_forward_hook(dies)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    hook.remove()
    second = Line()
    Trainer(second, options(), tmp_path).run()
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def interrupt():
    raise KeyboardInterrupt


def test_each_epoch_sees_each_row_once_in_an_order_of_its_own():
    task = Line()
    trainer = Trainer(task, options())
    trainer.run()
    assert trainer.updates == 15
    epochs = [list(itertools.chain(*task.seen[i : i + 5])) for i in (0, 5, 10)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(40))
    assert epochs[0] != epochs[1]


def test_another_run_in_the_folder_is_refused(tmp_path):
    Trainer(Line(), options(), tmp_path).run()
    with pytest.raises(ValueError, match="expected a run of"):
        Trainer(Line(), options(seed=6), tmp_path)
    (tmp_path / FILE).write_bytes(b"not a run")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        Trainer(Line(), options(), tmp_path)


def test_schedules():
    trainer = Trainer(Line(), options(epochs=200, schedule="restarts"))
    rates = []
    for epoch in (0, 5, 9, 10, 29, 30, 69, 70):
        trainer.update = epoch * trainer.per_epoch
        rates.append(trainer.learning_rate())
    assert rates[0] == rates[3] == rates[5] == rates[7] == 1e-3
    assert rates[1] == pytest.approx((1e-3 + 1e-6) / 2)
    assert max(rates[2], rates[4], rates[6]) < 3e-5
    cosine = Trainer(Line(), options(epochs=200))
    cosine.update = cosine.updates - 1
    assert cosine.learning_rate() < 1e-7
    cosine.update = cosine.updates // 2
    assert cosine.learning_rate() == pytest.approx(5e-4, rel=0.05)


def test_averaged_weights_are_what_training_leaves():
    plain, averaged = Line(), Line()
    Trainer(plain, options(average=0.0)).run()
    Trainer(averaged, options()).run()
    a, b = (task.state_dict()["net.0.weight"] for task in (plain, averaged))
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, b, atol=0.05, rtol=0.5)


def test_a_gradient_that_is_not_finite_stops_the_run():
    task = Line()
    task.x[3] = torch.inf
    with pytest.raises(FloatingPointError, match="update"):
        Trainer(task, options()).run()


def test_fewer_rows_than_a_batch_are_one_batch():
    trainer = Trainer(Line(5), options())
    trainer.run()
    assert trainer.updates == 3
    with pytest.raises(ValueError, match="at least one row"):
        Trainer(Line(0), options())


@pytest.mark.bad_input
def test_options_that_are_none():
    for wrong in ({"schedule": "sawtooth"}, {"average": 1.0}, {"epochs": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            options(**wrong)
