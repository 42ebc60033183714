"""The job of restarted.py for torchft: each process is a replica group of one. A dead replica is started again by torchft_job.py and takes
its state from the other one; the survivor goes on. Moments as in restarted.py."""
import os
import time

from moments import model as _model
from moments import note

note("started")
import torch  # noqa: E402
from torchft import DistributedDataParallel, Manager, Optimizer, ProcessGroupGloo  # noqa: E402

note("imported")
model = _model()
inner = torch.optim.SGD(model.parameters(), 0.01)
store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
manager = Manager(
    pg=ProcessGroupGloo(), min_replica_size=1, replica_id=f"replica-{os.environ['REPLICA']}", rank=0, world_size=1,
    store_addr="127.0.0.1", store_port=store.port, hostname="127.0.0.1",
    load_state_dict=lambda state: (model.load_state_dict(state["model"]), inner.load_state_dict(state["optimizer"])),
    state_dict=lambda: {"model": model.state_dict(), "optimizer": inner.state_dict()})
wrapped = DistributedDataParallel(manager, model)
optimizer = Optimizer(manager, inner)
note("grouped")
note("loaded")
while True:
    began = time.monotonic()
    optimizer.zero_grad()
    wrapped(torch.randn(32, 256)).square().mean().backward()
    optimizer.step()
    time.sleep(max(0.0, 0.02 - (time.monotonic() - began)))
    if manager.num_participants() == 2:                # steps of one replica alone are not the job's
        note("step", manager.current_step())
