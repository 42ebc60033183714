"""Plain DDP, a checkpoint each step. Rank 1 is killed once, as by the kernel."""
import os
import signal

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank, first = dist.get_rank(), os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
torch.manual_seed(0)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 2))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
step = 0
if os.path.exists("saved.pt"):
    state = torch.load("saved.pt", weights_only=True)          # noqa: TID251 as users write it
    model.load_state_dict(state["model"])
    step = state["step"]
    print(f"rank {rank} goes on after step {step}", flush=True)
while step < 8:
    if first and rank == 1 and step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    optimizer.zero_grad()
    model(torch.ones(2, 4) * (rank + step)).square().mean().backward()
    optimizer.step()
    step += 1
    if rank == 0:
        torch.save({"model": model.state_dict(), "step": step}, "saved.new")
        os.replace("saved.new", "saved.pt")
    dist.barrier()
print(f"rank {rank} ends at step {step}: {sum(p.sum().item() for p in model.parameters()):.6f}", flush=True)
dist.destroy_process_group()
