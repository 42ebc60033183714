"""Handwritten digits that come with scikit-learn: 1,797 grey images of 8 × 8 pixels (UCI, Alpaydin and Kaynak 1998). No download.

    data = Digits()
    data.train.fetch(np.array([0])) -> {"image": float32 [1, 1, 8, 8], "label": int64 [1]}
"""
from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from mltrain.data.arrays import Arrays
from mltrain.data.dataset import Subset
from mltrain.data.order import SampleOrder
from mltrain.errors import ConfigError
from mltrain.extras import require

BRIGHTEST = 16.0                                # of a pixel as it is stored


class Digits:
    """holdout: share of the images that is kept for validation, the same images on every machine (the first of one fixed shuffle)."""

    def __init__(self, holdout: float = 0.2) -> None:
        if not 0 < holdout < 1:
            raise ConfigError(f"data.holdout={holdout} is no share", "give a number between 0 and 1, such as 0.2")
        self.holdout = holdout

    @cached_property
    def _all(self) -> Arrays:
        """Raises NodeUnfit (69) with the install line if scikit-learn is not there."""
        found = require("sklearn.datasets", "the data of digits").load_digits()
        images = torch.from_numpy(found.images).float().div(BRIGHTEST).unsqueeze(1)
        return Arrays({"image": images, "label": torch.from_numpy(found.target).long()})

    @cached_property
    def _held_out(self) -> int:
        return round(self.holdout * len(self._all))

    @cached_property
    def train(self) -> Subset:
        return Subset(self._all, SampleOrder(len(self._all), seed=0).ids(self._held_out, len(self._all)))

    @cached_property
    def validation(self) -> Subset:
        return Subset(self._all, SampleOrder(len(self._all), seed=0).ids(0, self._held_out))

    def describe(self) -> dict[str, Any]:
        """What a run records of its data."""
        samples = {"train": len(self.train), "validation": len(self.validation)}
        return {"dataset": "scikit-learn digits", "fingerprint": self._all.fingerprint, "classes": 10, "holdout": self.holdout,
                "samples": samples}
