"""torchft brings no launcher of its own for one machine: its lighthouse, two replicas, and each that dies is started again at once."""
import os
import subprocess
import sys
from pathlib import Path

from torchft.coordination import LighthouseServer

lighthouse = LighthouseServer(bind="127.0.0.1:0", min_replicas=1, join_timeout_ms=100)
address = lighthouse.address().replace(os.uname().nodename, "127.0.0.1")


def replica(number: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "REPLICA": str(number), "TORCHFT_LIGHTHOUSE": address}
    return subprocess.Popen([sys.executable, str(Path(__file__).with_name("torchft_replica.py"))], env=environment)


replicas = {process.pid: number for number in (0, 1) if (process := replica(number))}
while True:
    pid, _ = os.wait()
    if pid in replicas:
        number = replicas.pop(pid)
        replicas[replica(number).pid] = number
