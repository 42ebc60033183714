"""A hand-written loop; on two ranks with DistributedDataParallel."""
import torch
import torch.distributed as dist

from peers.workload import STEPS, WORLD, Clock, batches, loss, model, optimizer

net, data, clock = model(), batches(), Clock()
if WORLD > 1:
    dist.init_process_group("gloo")
    net = torch.nn.parallel.DistributedDataParallel(net)
steps = optimizer(net.parameters())
for step in range(STEPS):
    loss(net, data[step % len(data)]).backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    steps.step()
    steps.zero_grad()
    clock.tick()
clock.report()
