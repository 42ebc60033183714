"""A sample of what a language model has learnt, at the end of a run."""
from __future__ import annotations

import torch

from mltrain.data.source import Tokens
from mltrain.parallel.streams import seed_micro_batch
from mltrain.progress import Progress
from mltrain.task import StepResult, Task
from mltrain.trainer.callback import Callback

SAMPLE_STREAM = -3      # a step number that training never has


class Sample(Callback):
    """Continues `prompt` by `tokens` tokens when the run stops. temperature: 0 takes the likeliest token. Every rank takes part (the
    weights may be cut over ranks) and draws the same. task: one with `logits`, as LanguageModeling."""

    def __init__(self, task: Task, data: Tokens, seed: int, prompt: str = "def ", tokens: int = 200, temperature: float = 0.8) -> None:
        self.task, self.data, self.seed = task, data, seed
        self.prompt, self.tokens, self.temperature = prompt, tokens, temperature

    def stop(self, progress: Progress, result: StepResult | None) -> str | None:
        return f"sample after step {progress.step}:\n{self._text()}"

    @torch.no_grad()
    def _text(self) -> str:
        tokenizer, device = self.data.tokenizer, next(self.task.parameters()).device
        # the separator that begins every document, then the prompt
        ids: list[int] = tokenizer.encode([self.prompt.encode()])[0].tolist()
        self.task.eval()
        seed_micro_batch(self.seed, SAMPLE_STREAM, 0)
        for _ in range(self.tokens):
            window = torch.tensor([ids[-self.data.sequence :]], device=device)
            logits = self.task.logits(window)[0]  # type: ignore[operator]  # the docstring asks for it
            if self.temperature > 0:
                ids.append(int(torch.multinomial(torch.softmax(logits / self.temperature, 0), 1)))
            else:
                ids.append(int(logits.argmax()))
        return tokenizer.decode(ids)
