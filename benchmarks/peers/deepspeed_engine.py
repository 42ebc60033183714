"""DeepSpeed's engine, ZeRO stage 0, with torch's AdamW (its own would compile an operation first)."""
import logging
import os

import deepspeed

from peers.workload import BATCH, STEPS, WORLD, Clock, batches, loss, model, optimizer

logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29581")):
    os.environ.setdefault(name, value)
deepspeed.init_distributed("gloo", verbose=False)
data, clock, net = batches(), Clock(), model()
engine, *_ = deepspeed.initialize(model=net, optimizer=optimizer(net.parameters()), config={
    "train_batch_size": BATCH, "train_micro_batch_size_per_gpu": BATCH // WORLD, "gradient_clipping": 1.0, "steps_per_print": 10 ** 9})
for step in range(STEPS):
    engine.backward(loss(engine, data[step % len(data)]))
    engine.step()
    clock.tick()
clock.report()
