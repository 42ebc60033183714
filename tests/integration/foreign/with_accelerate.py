"""Accelerate around a hand-written loop; save_state and load_state are its own. Rank 1 is killed once."""
import os
import signal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

accelerator = Accelerator(cpu=True)
rank, first = accelerator.process_index, os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
set_seed(0)
model = torch.nn.Linear(4, 2)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(32, 4)), batch_size=2)
model, optimizer, data = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1), data)
step = 0
if os.path.exists("saved/whole"):
    accelerator.load_state("saved")
    step = 4
    print(f"rank {rank} goes on after step {step}", flush=True)
for (rows,) in accelerator.skip_first_batches(data, step):
    if first and rank == 1 and step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    accelerator.backward(model(rows).square().mean())
    optimizer.step()
    optimizer.zero_grad()
    step += 1
    if step == 4 and first:
        accelerator.save_state("saved")
        accelerator.wait_for_everyone()
        open("saved/whole", "w").close()
print(f"rank {rank} ends at step {step}: {sum(p.sum().item() for p in model.parameters()):.6f}", flush=True)
accelerator.end_training()
