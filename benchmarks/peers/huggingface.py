"""Hugging Face's Trainer; batches come ready, logging and checkpoints off, the same optimizer object."""
import tempfile

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from peers.workload import BATCH, STEPS, WORLD, Clock, batches, loss, model, optimizer

clock, data, net = Clock(), batches(), model()


class Ready(torch.utils.data.Dataset):
    def __len__(self):
        return STEPS * BATCH // WORLD

    def __getitem__(self, index):
        return index


class Ticking(TrainerCallback):
    def on_step_end(self, *_, **__):
        clock.tick()


class Loop(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **_):
        return loss(model, inputs["tokens"])


count = iter(range(10 ** 9))
arguments = TrainingArguments(tempfile.mkdtemp(), per_device_train_batch_size=BATCH // WORLD, max_steps=STEPS, max_grad_norm=1.0,
                              use_cpu=True,
                              logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True, remove_unused_columns=False,
                              lr_scheduler_type="constant")
steps = optimizer(net.parameters())
schedule = torch.optim.lr_scheduler.ConstantLR(steps, factor=1.0)
trainer = Loop(net, arguments, train_dataset=Ready(), data_collator=lambda rows: {"tokens": data[next(count) % len(data)]},
               optimizers=(steps, schedule), callbacks=[Ticking()])
trainer.train()
clock.report()
