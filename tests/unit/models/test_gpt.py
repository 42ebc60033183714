"""The reference model: causal, blind across documents, and loss in bits."""
from __future__ import annotations

import pytest
import torch

from mltrain.errors import ConfigError
from mltrain.models.gpt import GPT
from mltrain.models.language import LanguageModeling


def model(**options: object) -> GPT:
    torch.manual_seed(0)
    return GPT(257, width=32, layers=2, heads=4, **options).eval()  # type: ignore[arg-type]


def test_no_position_sees_the_future() -> None:
    gpt, tokens = model(), torch.randint(0, 256, (1, 12))
    changed = tokens.clone()
    changed[0, 8:] = 7
    torch.testing.assert_close(gpt(tokens)[:, :8], gpt(changed)[:, :8])


def test_a_document_does_not_see_the_one_before() -> None:
    task = LanguageModeling(model())
    tokens = torch.tensor([[256, 1, 2, 3, 256, 4, 5]])
    other = torch.tensor([[256, 9, 8, 7, 256, 4, 5]])
    torch.testing.assert_close(task.logits(tokens), task.logits(other))


def test_without_a_separator_it_does() -> None:
    task = LanguageModeling(model(), separator=None)
    assert not torch.allclose(task.logits(torch.tensor([[256, 1, 2, 256, 4]])), task.logits(torch.tensor([[256, 9, 8, 256, 4]])))


@pytest.mark.parametrize("options", [{"kv_heads": 2}, {"kv_heads": 1}, {"tied": False}, {"hidden": 48}])
def test_options_give_logits(options: dict[str, object]) -> None:
    assert model(**options)(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, 257)


def test_tied_has_no_head() -> None:
    assert not [name for name, _ in model().named_parameters() if "head" in name]


def test_stored_types_are_widened_here() -> None:
    task = LanguageModeling(model())
    tokens = torch.randint(0, 256, (2, 9))
    assert task.loss({"tokens": tokens.to(torch.uint16)}).total == task.loss({"tokens": tokens}).total


def test_ignored_targets_have_no_weight() -> None:
    task = LanguageModeling(model(), ignore=5)
    tokens = torch.tensor([[1, 5, 2, 5, 3]])
    assert task.loss({"tokens": tokens}).weight == task.weight({"tokens": tokens}) == 2


def test_a_fresh_model_needs_about_eight_bits_a_byte() -> None:
    task = LanguageModeling(model())
    total, weight = task.evaluate({"tokens": torch.randint(0, 256, (4, 65))})["bits_per_byte"]
    assert 7.9 < total / weight < 8.2


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="task.model.width=30"):
        GPT(257, width=30, heads=4)
    with pytest.raises(ConfigError, match="kv_heads=3"):
        GPT(257, width=32, heads=4, kv_heads=3)
