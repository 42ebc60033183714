"""What a Task gives back is looked at where it comes from: a wrong type is named, with what to return."""
from __future__ import annotations

import pytest
import torch

from mltrain import Loss, Task
from mltrain.errors import TaskError

ONE = torch.ones((), requires_grad=True)
RIGHT = Loss(ONE, 1)


class Gives(Task):
    def __init__(self, loss=RIGHT, evaluation=None):
        super().__init__()
        self.given, self.evaluation = loss, evaluation

    def loss(self, batch):
        return self.given

    def evaluate(self, batch):
        return super().evaluate(batch) if self.evaluation is None else self.evaluation


@pytest.mark.parametrize("weight", [3, 3.0, torch.tensor(3), torch.ones(1)])
def test_a_loss_and_its_weight_pass_as_they_are(weight):
    assert Gives(Loss(ONE, weight))({}) == (ONE, weight)


@pytest.mark.parametrize(("loss", "told"), [
    (ONE, r"Gives.loss returned a tensor of shape \[\], not a Loss"), (None, "returned None, not a Loss"),
    ({"loss": ONE}, "returned dict"), (Loss(1.5, 1), "total is float '1.5', not a 0-d tensor"),
    (Loss(torch.ones(3), 1), r"total is a tensor of shape \[3\], not a 0-d tensor"),
    (Loss(ONE, "many"), "weight is str 'many', not a number"),
    (Loss(ONE, torch.ones(2)), r"weight is a tensor of shape \[2\]"), (Loss(ONE.detach(), 1), "total depends on no parameter"),
])
def test_a_wrong_loss_is_named(loss, told):
    with pytest.raises(TaskError, match=told):
        Gives(loss)({})


@pytest.mark.parametrize(("evaluation", "told"), [
    (RIGHT, r"Gives.evaluate returned Loss .*, not a dict of Loss"), ({"error": ONE}, "Gives.evaluate: 'error' returned a tensor"),
])
def test_a_wrong_evaluation_is_named(evaluation, told):
    with pytest.raises(TaskError, match=told):
        Gives(evaluation=evaluation)({}, evaluating=True)


def test_an_evaluation_needs_no_gradient():
    assert Gives(Loss(torch.ones(()), 1))({}, evaluating=True) == {"loss": (1.0, 1)}
