"""Lightning's Trainer with its own checkpoints, resumed by ckpt_path="last". Rank 1 is killed once."""
import os
import signal

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(4, 2)

    def training_step(self, batch, index):
        if first and self.global_rank == 1 and self.global_step == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.net(batch[0]).square().mean()

    def on_train_start(self):
        if self.global_step:
            print(f"rank {self.global_rank} goes on after step {self.global_step}", flush=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


lightning.seed_everything(0, verbose=False)
module = Module()
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(32, 4)), batch_size=2)
keep = ModelCheckpoint("saved", every_n_train_steps=4, save_last=True)
trainer = lightning.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_steps=8, logger=False, callbacks=[keep],
                            enable_progress_bar=False, enable_model_summary=False)
trainer.fit(module, data, ckpt_path="last" if os.path.exists("saved/last.ckpt") else None)
weights = sum(p.sum().item() for p in module.parameters())
print(f"rank {trainer.global_rank} ends at step {trainer.global_step}: {weights:.6f}", flush=True)
