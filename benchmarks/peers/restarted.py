"""The script that recovery.py kills: plain DDP with gloo, a step of about 20 ms, a checkpoint each step. It knows no launcher."""
import os
import time

from moments import model as _model
from moments import note

note("started")
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

note("imported")
dist.init_process_group("gloo")
note("grouped")
path = os.path.join(os.environ["EVENTS"], "weights")
model = _model()
step = 0
if os.path.exists(path):
    state = load_file(path)
    step = int(state.pop("step"))
    model.load_state_dict(state)
wrapped = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(wrapped.parameters(), 0.01)
note("loaded")
while True:
    began = time.monotonic()
    optimizer.zero_grad()
    wrapped(torch.randn(32, 256)).square().mean().backward()
    optimizer.step()
    step += 1
    if dist.get_rank() == 0:
        save_file({**model.state_dict(), "step": torch.tensor(step)}, path + ".new")
        os.replace(path + ".new", path)
    dist.barrier()                                     # the checkpoint is there
    time.sleep(max(0.0, 0.02 - (time.monotonic() - began)))
    note("step", step)
