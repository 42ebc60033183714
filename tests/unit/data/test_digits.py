"""Data in memory, and scikit-learn's digits."""
from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from mltrain.data.arrays import Arrays
from mltrain.data.digits import Digits
from mltrain.errors import ConfigError, DataError, NodeUnfit


def numbers(add: int = 0) -> Arrays:
    return Arrays({"image": torch.arange(6.0).view(3, 2) + add, "label": torch.arange(3)})


def test_samples_come_in_the_order_of_their_ids():
    batch = numbers().fetch(np.array([2, 0]))
    assert batch["label"].tolist() == [2, 0] and batch["image"].tolist() == [[4, 5], [0, 1]]


def test_the_fingerprint_is_of_the_content():
    assert numbers().fingerprint == numbers().fingerprint != numbers(1).fingerprint


@pytest.mark.parametrize("ids", [[3], [-1]])
def test_an_id_outside_is_an_error(ids):
    with pytest.raises(IndexError):
        numbers().fetch(np.array(ids))


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(DataError, match="same length"):
        Arrays({"image": torch.zeros(2, 1), "label": torch.zeros(3)})


def test_digits_are_split_the_same_way_everywhere():
    data = Digits()
    assert (len(data.train), len(data.validation)) == (1438, 359)
    assert data.train.fingerprint == "38793299d8b6aa37432d0e30322ceed4"
    assert data.validation.fetch(np.arange(8))["label"].tolist() == [9, 4, 9, 6, 3, 0, 9, 5]
    assert not set(data.train.chosen.tolist()) & set(data.validation.chosen.tolist())


def test_digits_are_grey_images_between_0_and_1():
    batch = Digits().train.fetch(np.arange(1000))
    assert batch["image"].shape == (1000, 1, 8, 8) and batch["image"].dtype == torch.float32 and batch["label"].dtype == torch.int64
    assert (float(batch["image"].min()), float(batch["image"].max())) == (0, 1)


def test_what_a_run_records_of_digits():
    described = Digits(holdout=0.5).describe()
    assert described["samples"] == {"train": 899, "validation": 898} and described["fingerprint"] == Digits().describe()["fingerprint"]


@pytest.mark.parametrize("holdout", [0, 1, -0.5, 1.5])
def test_a_holdout_that_is_no_share(holdout):
    with pytest.raises(ConfigError, match="is no share"):
        Digits(holdout)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(NodeUnfit, match=r"mltrain-core\[vision\]"):
        len(Digits().train)
