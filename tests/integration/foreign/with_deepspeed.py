"""DeepSpeed's engine, ZeRO stage 1 on gloo, with its own checkpoints. Rank 1 is killed once."""
import os
import signal

import deepspeed
import torch

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False     # plain gloo: its own operation is compiled first, for minutes
deepspeed.init_distributed("gloo", verbose=False)
rank, first = torch.distributed.get_rank(), os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
torch.manual_seed(0)
model = torch.nn.Linear(4, 2)
engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.Adam(model.parameters(), 0.1), config={
    "train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": 1}, "zero_allow_untested_optimizer": True})
step = 0
if os.path.exists("saved/latest"):
    engine.load_checkpoint("saved")
    step = engine.global_steps
    print(f"rank {rank} goes on after step {step}", flush=True)
while step < 8:
    if first and rank == 1 and step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    engine.backward(engine(torch.ones(2, 4) * (rank + step)).square().mean())
    engine.step()
    step += 1
    if step == 4:
        engine.save_checkpoint("saved")
print(f"rank {rank} ends at step {step}: {sum(p.sum().item() for p in model.parameters()):.6f}", flush=True)
torch.distributed.destroy_process_group()
