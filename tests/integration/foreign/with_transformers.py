"""Hugging Face's Trainer with its own checkpoints, resumed by resume_from_checkpoint. Rank 1 is killed once."""
import os
import signal

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, rows):
        return {"loss": self.linear(rows).square().mean()}


class Fault(TrainerCallback):
    def on_train_begin(self, arguments, state, control, **_):
        if state.global_step:
            print(f"rank {arguments.process_index} goes on after step {state.global_step}", flush=True)

    def on_step_begin(self, arguments, state, control, **_):
        if first and arguments.process_index == 1 and state.global_step == 6:
            os.kill(os.getpid(), signal.SIGKILL)


set_seed(0)
arguments = TrainingArguments("saved", per_device_train_batch_size=2, max_steps=8, save_steps=4, use_cpu=True,
                              report_to=[], disable_tqdm=True, logging_strategy="no", learning_rate=0.1)
model = Net()
trainer = Trainer(model, arguments, train_dataset=[{"rows": row} for row in torch.randn(32, 4)], callbacks=[Fault()])
trainer.train(resume_from_checkpoint=get_last_checkpoint("saved") if os.path.isdir("saved") else None)
weights = sum(p.sum().item() for p in model.parameters())
print(f"rank {arguments.process_index} ends at step {trainer.state.global_step}: {weights:.6f}", flush=True)
