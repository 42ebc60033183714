"""Lightning's Trainer with what slows it needlessly switched off (progress bar, model summary); its own logger and checkpoints off too."""
import logging
import warnings

import lightning
import torch

from peers.workload import STEPS, WORLD, Clock, batches, loss, model, optimizer

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
clock = Clock()


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = model()

    def training_step(self, batch, index):
        return loss(self.net, batch)

    def configure_optimizers(self):
        return optimizer(self.parameters())


class Ticking(lightning.Callback):
    def on_train_batch_end(self, *_):
        clock.tick()


data = batches()
module = Module()
trainer = lightning.Trainer(accelerator="cpu", devices=WORLD, strategy="ddp" if WORLD > 1 else "auto", max_steps=STEPS,
                            gradient_clip_val=1.0, logger=False, enable_checkpointing=False,
                            enable_progress_bar=False, enable_model_summary=False,
                            use_distributed_sampler=False, callbacks=[Ticking()])
ready = [data[step % len(data)] for step in range(STEPS)]
trainer.fit(module, torch.utils.data.DataLoader(ready, batch_size=None))
clock.report()
