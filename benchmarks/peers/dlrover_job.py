"""DLRover's own --standalone fails on torch 2.13; its master started by hand, and dlrover-run, work."""
import os
import socket
import subprocess
import sys
from pathlib import Path

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
environment = {**os.environ, "DLROVER_MASTER_ADDR": f"127.0.0.1:{port}", "NODE_ID": "0", "NODE_NUM": "1", "NODE_RANK": "0"}
master = [sys.executable, "-m", "dlrover.python.master.main", "--port", str(port), "--node_num", "1", "--job_name", "recovery",
          "--platform", "local"]
subprocess.Popen(master, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
run = str(Path(sys.executable).with_name("dlrover-run"))
os.execve(run, [run, "--nnodes", "1", "--nproc_per_node", "2", "--max_restarts", "1000", *sys.argv[1:]], environment)
