"""The vision transformer and classification: patches, places, sums of losses, and initial weights that follow from names."""
from __future__ import annotations

import pytest
import torch

from mltrain.errors import ConfigError
from mltrain.models.classify import Classification
from mltrain.models.vit import ViT, cut
from mltrain.parallel.initial import build


def model(**options: object) -> ViT:
    torch.manual_seed(0)
    return ViT(**{"classes": 10, "side": 8, "patch": 2, "channels": 1, "width": 16, "layers": 2, **options}).eval()  # type: ignore[arg-type]


def test_patches_are_squares_of_the_image_row_by_row() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert cut(image, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_a_patch_holds_all_channels() -> None:
    image = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)])[None]
    assert cut(image, 2)[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("options", [{"channels": 3}, {"patch": 4}, {"side": 16, "patch": 8}, {"hidden": 32}, {"classes": 3}])
def test_options_give_logits(options: dict[str, int]) -> None:
    images = torch.zeros(2, options.get("channels", 1), options.get("side", 8), options.get("side", 8))
    assert model(**options)(images).shape == (2, options.get("classes", 10))


def test_places_matter() -> None:
    vit, image = model(), torch.rand(1, 1, 8, 8)
    assert not torch.allclose(vit(image), vit(image.flip(-1)), atol=1e-4)


def test_samples_do_not_see_one_another() -> None:
    vit, images = model(), torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(vit(images)[1:2], vit(images[1:2]))


@pytest.mark.parametrize(("options", "words"), [({"patch": 3}, "does not divide side"), ({"width": 30}, "does not cut into 4 heads")])
def test_sizes_that_do_not_fit_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        model(**options)


def test_its_weights_can_be_made_unit_by_unit() -> None:
    assert build(lambda: Classification(ViT(10, 8, 2)), seed=0)[1]


def test_loss_is_a_sum_and_accuracy_counts() -> None:
    task = Classification(torch.nn.Identity())
    batch = {"image": torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0]]), "label": torch.tensor([0, 1, 1])}
    total, weight = task.loss(batch)
    assert weight == task.weight(batch) == 3
    torch.testing.assert_close(total, torch.tensor(9.0 + 3 * torch.exp(torch.tensor(-9.0)).log1p().item()))
    assert [float(value) for value in task.evaluate(batch)["accuracy"]] == [2, 3]
