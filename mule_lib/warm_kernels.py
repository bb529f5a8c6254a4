"""Kernels that start with the heavy packages imported already: an untrained row costs 7 CPU seconds instead of 16.

`mule reproduce` starts one server (warm_server.py); the kernels of the notebooks that its jobs run are forks of it.
Without a server, and for whatever the server declines, kernels start as usual.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

NAME, GROUP = "mule-warm", "jupyter_client.kernel_provisioners"
SOCKET = "MULE_WARM_KERNELS"


def use() -> None:
    """From here on kernels of this process start warm, if a server is named in its environment."""
    if SOCKET in os.environ:
        factory = KernelProvisionerFactory.instance()
        factory.provisioners[NAME] = EntryPoint(NAME, f"{__name__}:WarmProvisioner", GROUP)
        factory.default_provisioner_name = NAME


class Forked:
    """A kernel that another process forked, with what LocalProvisioner asks of a subprocess.Popen."""

    stdin = stdout = stderr = None

    def __init__(self, connection: socket.socket, pid: int):
        self.connection, self.pid, self.returncode = connection, pid, None

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        if self.returncode is None and select.select([self.connection], [], [], 0)[0]:
            said = self.connection.recv(4096).decode()
            # A connection that closes without a word: the server was killed, and its kernels with it.
            self.returncode = int(said.split()[1]) if said else -signal.SIGKILL
            self.connection.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended. Raises subprocess.TimeoutExpired."""
        begun = time.monotonic()
        while (status := self.poll()) is None:
            if timeout is not None and time.monotonic() - begun > timeout:
                raise subprocess.TimeoutExpired("kernel", timeout)
            time.sleep(0.02)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class WarmProvisioner(LocalProvisioner):
    """Jupyter's own way to start a kernel, but by a fork of the server named in the environment, where there is one."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any):
        """Start the kernel; returns its connection information."""
        forked = fork(cmd, env=kwargs.get("env") or dict(os.environ), cwd=kwargs.get("cwd") or os.getcwd())
        if forked is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process, self.pid, self.pgid = forked, forked.pid, forked.pid
        self.cwd = kwargs.get("cwd", Path.cwd())
        return self.connection_info


def fork(cmd: list[str], *, env: Mapping[str, str], cwd: str) -> Forked | None:
    """Ask the server for a kernel; None where there is no server, or it declines."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(os.environ[SOCKET])
        request = json.dumps({"cmd": cmd, "env": dict(env), "cwd": str(cwd)}).encode()
        socket.send_fds(connection, [request], [1, 2])
        said = connection.recv(4096).decode().split()
    except (KeyError, OSError):
        said = []
    if said[:1] == ["pid"]:
        return Forked(connection, int(said[1]))
    connection.close()
    return None


@contextmanager
def warm_kernels(environment: Mapping[str, str], *packages: str) -> Iterator[dict[str, str]]:
    """Within, kernels started with the environment that is yielded are warm; it is the given one where they cannot be.

    The server imports `packages` (warm_server.PACKAGES) in the background: kernels that are asked for meanwhile start
    as usual.
    """
    if sys.platform != "linux":
        yield dict(environment)
        return
    with tempfile.TemporaryDirectory(prefix="mule-") as folder:
        path = str(Path(folder) / "kernels")
        server = subprocess.Popen(
            [sys.executable, "-m", "mule_lib.warm_server", path, *packages],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the notebooks first, which end their kernels themselves
        )
        try:
            yield {**environment, SOCKET: path}
        finally:
            server.stdin.close()
            server.wait()
