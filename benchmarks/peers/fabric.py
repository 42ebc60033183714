"""Lightning Fabric around the hand-written loop."""
from lightning.fabric import Fabric

from peers.workload import STEPS, WORLD, Clock, batches, loss, model, optimizer

fabric = Fabric(accelerator="cpu", devices=WORLD, strategy="ddp" if WORLD > 1 else "auto")
fabric.launch()
data, clock, net = batches(), Clock(), model()
net, steps = fabric.setup(net, optimizer(net.parameters()))
for step in range(STEPS):
    fabric.backward(loss(net, data[step % len(data)]))
    fabric.clip_gradients(net, steps, max_norm=1.0)
    steps.step()
    steps.zero_grad()
    clock.tick()
clock.report()
