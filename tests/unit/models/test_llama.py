"""The reference GPT as transformers reads it: the same logits, to the last bits that fp32 has."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mltrain.api import compose
from mltrain.beginning import config_of
from mltrain.checkpoint.checkpointer import Checkpointer
from mltrain.errors import UsageError
from mltrain.models.gpt import GPT
from mltrain.models.language import LanguageModeling
from mltrain.progress import Progress
from mltrain.weights import export

TASK = "mltrain.models.language.LanguageModeling"
OPTIONS = [{}, {"kv_heads": 2}, {"kv_heads": 1, "tied": False}, {"hidden": 48, "base": 500.0}]


def run(folder: Path, model: dict[str, object], target: str = TASK) -> tuple[str, LanguageModeling]:
    """A run of this model, as it lies on the disk, with weights far from their first ones."""
    arguments = {"vocabulary": 257, "width": 32, "layers": 2, "heads": 4, **model}
    torch.manual_seed(0)
    task = LanguageModeling(GPT(**arguments)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.mul_(2).add_(torch.randn_like(parameter), alpha=0.1)
    state = {f"parameters/{name}": parameter.detach() for name, parameter in task.named_parameters()}
    checkpointer = Checkpointer(folder / "checkpoints")
    checkpointer.save({**state, "optimizer/model.norm.weight/step": torch.tensor(3.0)}, Progress(7))
    checkpointer.wait()
    checkpointer.close()
    config = config_of(compose(["recipe=hello", "data.sequence=64"]))
    config["tree"]["task"] |= {"_target_": target, "model": {"_target_": "mltrain.models.gpt.GPT", **arguments}}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder / "checkpoints"), task


def to_transformers(folder: Path, checkpoints: str) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM
    export(checkpoints, (), str(folder / "out"), step=None, format="huggingface")
    return AutoModelForCausalLM.from_pretrained(folder / "out", local_files_only=True).eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize("model", OPTIONS, ids=str)
def test_transformers_gives_the_same_logits(model: dict[str, object], tmp_path: Path) -> None:
    checkpoints, task = run(tmp_path, model)
    theirs = to_transformers(tmp_path, checkpoints)
    tokens = torch.randint(0, 256, (3, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, task.model(tokens), atol=1e-5, rtol=0)


def test_transformers_knows_what_it_is(tmp_path: Path) -> None:
    theirs = to_transformers(tmp_path, run(tmp_path, {"kv_heads": 2, "base": 500.0})[0])
    assert type(theirs).__name__ == "LlamaForCausalLM" and theirs.dtype == torch.float32
    assert (theirs.config.bos_token_id, theirs.config.max_position_embeddings, theirs.config.num_key_value_heads) == (256, 64, 2)


def test_no_weight_is_left_to_chance(tmp_path: Path) -> None:
    from safetensors import safe_open
    theirs = to_transformers(tmp_path, run(tmp_path, {"tied": False})[0])
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == {name for name, _ in theirs.named_parameters()}


def test_another_model_has_no_layout_there(tmp_path: Path) -> None:
    checkpoints, _ = run(tmp_path, {}, target="my.Task")
    with pytest.raises(UsageError, match="its task is my.Task"):
        export(checkpoints, (), str(tmp_path / "out"), step=None, format="huggingface")
    assert not (tmp_path / "out").exists()
