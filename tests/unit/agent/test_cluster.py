"""An agent among agents: whom it takes for another one."""
from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from mltrain.agent.hosts.cluster import Cluster
from mltrain.agent.hosts.shared import Shared
from mltrain.agent.loop import Loop
from mltrain.agent.options import parse
from mltrain.agent.scribe import Scribe
from mltrain.cli.arguments import Parser


def carry(source: socket.socket, to: socket.socket) -> None:
    while data := source.recv(1 << 16):
        to.sendall(data)
    to.shutdown(socket.SHUT_WR)


def test_its_own_words_carried_back_to_it_are_no_other_agent(tmp_path: Path) -> None:
    """Somebody between it and the rendezvous leads its connection to its own port: every proof is right, for it made them itself."""
    carried = list[socket.socket]()
    with socket.create_server(("127.0.0.2", 0)) as middle:
        there = f"127.0.0.2:{middle.getsockname()[1]}"
        options = parse(["--nodes", "2", "--rendezvous", there, "--address", "127.0.0.1", "--run-dir", str(tmp_path), "--", "true"], Parser)
        (tmp_path / "nodes").mkdir()
        shared, loop = Shared(tmp_path, None), Loop()
        shared.secret(make=True)
        base = SimpleNamespace(state=lambda: (True, True), listening=lambda host: None, lead=lambda *_: None, leave=lambda code: None)
        cluster = Cluster(loop, options, shared, Scribe(loop), base)

        def between() -> None:
            there, _ = middle.accept()
            back = socket.create_connection(("127.0.0.1", int(cluster.own.rpartition(":")[2])))
            carried.extend([there, back])
            threading.Thread(target=carry, args=(there, back), daemon=True).start()
            carry(back, there)

        thread = threading.Thread(target=between, daemon=True)
        thread.start()
        cluster.start()
        give_up = time.monotonic() + 20
        loop.run(lambda: (not thread.is_alive() and bool(carried)) or bool(cluster._seekers) or time.monotonic() > give_up)
    assert len(carried) == 2 and not thread.is_alive(), "the connection was ended"
    assert cluster._seekers == {}
    cluster.close()
    for sock in carried:
        sock.close()
