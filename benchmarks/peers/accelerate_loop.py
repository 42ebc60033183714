"""Accelerate around the hand-written loop; its scheduler is not used (it would step once a rank)."""
from accelerate import Accelerator

from peers.workload import STEPS, Clock, batches, loss, model, optimizer

accelerator = Accelerator(cpu=True)
data, clock, net = batches(), Clock(), model()
net, steps = accelerator.prepare(net, optimizer(net.parameters()))
for step in range(STEPS):
    accelerator.backward(loss(net, data[step % len(data)]))
    accelerator.clip_grad_norm_(net.parameters(), 1.0)
    steps.step()
    steps.zero_grad()
    clock.tick()
clock.report()
