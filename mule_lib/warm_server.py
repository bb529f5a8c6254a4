"""A process that imports the heavy packages once and forks for every kernel: `python -m mule_lib.warm_server SOCKET`.

Started and ended by `mule reproduce` (warm_kernels.py). Only packages of others are imported here, never this library:
a kernel reads that from disk, so an edit between two kernels counts. Linux only, and for jobs without a GPU: a driver
that has been started does not survive a fork.

One connection serves one kernel. Request: JSON (cmd, env, cwd) with the descriptors of standard output and
error. Replies: `pid N`, or `cold REASON` where the kernel has to be started in the usual way; later `exit N`. A
connection that closes ends its kernel; the end of standard input ends the server and all kernels.
"""

import importlib
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = (
    *(
        "torch",
        "transformers",
        "transformers.models.llama.modeling_llama",
        "transformers.trainer",
        "peft",
        "accelerate",
    ),
    *("pandas", "scipy.optimize", "rouge_score.rouge_scorer", "matplotlib.pyplot", "seaborn", "pydantic", "yaml"),
    *("ipykernel.ipkernel", "ipykernel.zmqshell", "IPython.core.completer", "matplotlib_inline.backend_inline"),
)
LAUNCHER = ["-m", "ipykernel_launcher"]
LONGEST = 2**20  # bytes of a request


@dataclass
class Server:
    """Open connections by the process that each keeps alive."""

    listener: socket.socket
    kernels: dict[int, socket.socket] = field(default_factory=dict)
    selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)

    def run(self) -> None:
        """Serve until standard input ends."""
        waking, woken = os.pipe()
        for end in (waking, woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source in (self.listener, sys.stdin.fileno(), waking):
            self.selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.listener:
                    connection, _ = self.listener.accept()
                    self.selector.register(connection, selectors.EVENT_READ)
                elif key.fileobj == waking:
                    os.read(waking, 4096)
                    self.reap()
                elif isinstance(key.fileobj, socket.socket):
                    self.hear(key.fileobj)
                elif not os.read(sys.stdin.fileno(), 4096):
                    for pid in self.kernels:
                        _end(pid)
                    return

    def hear(self, connection: socket.socket) -> None:
        """A request, or the end of a connection, which ends its kernel."""
        try:
            asked, descriptors, *_ = socket.recv_fds(connection, LONGEST, 2)
        except OSError:
            asked, descriptors = b"", []
        if not asked:
            for pid in [pid for pid, other in self.kernels.items() if other is connection]:
                del self.kernels[pid]
                _end(pid)
            self.close(connection)
            return
        request = json.loads(asked)
        if reason := _cold(request, descriptors):
            connection.sendall(f"cold {reason}".encode())
        else:
            sys.stdout.flush()
            if not (pid := os.fork()):
                self.become_a_kernel(request, descriptors)
            self.kernels[pid] = connection
            connection.sendall(f"pid {pid}".encode())
        for descriptor in descriptors:
            os.close(descriptor)

    def reap(self) -> None:
        """Tell of each kernel that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if connection := self.kernels.pop(pid, None):
                with suppress(OSError):  # whoever asked may be gone
                    connection.sendall(f"exit {os.waitstatus_to_exitcode(status)}".encode())
                self.close(connection)

    def close(self, connection: socket.socket) -> None:
        """Forget a connection."""
        self.selector.unregister(connection)
        connection.close()

    def become_a_kernel(self, request: dict, descriptors: list[int]) -> None:
        """In the child: leave all of the server behind and run ipykernel; does not return."""
        parent, code = os.getppid(), 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.setsid()
            with open(os.devnull) as nothing:
                os.dup2(nothing.fileno(), 0)
            for descriptor, standard in zip(descriptors, (1, 2), strict=True):
                os.dup2(descriptor, standard)
            for key in list(self.selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()
            self.selector.close()
            os.chdir(request["cwd"])
            os.environ.clear()
            os.environ.update(request["env"])
            for name in [name for name in sys.modules if name.split(".")[0] == "mule_lib"]:
                del sys.modules[name]
            arguments = request["cmd"][request["cmd"].index(LAUNCHER[1]) + 1 :]
            from ipykernel.kernelapp import IPKernelApp

            # ipykernel took its parent from the environment when it was imported.
            IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={parent}"])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            sys.stdout.flush()
            os._exit(code)


def _cold(request: dict, descriptors: list[int]) -> str | None:
    """Why a fork would not be the kernel that was asked for; None if it is."""
    command = request["cmd"]
    if LAUNCHER[1] not in command or Path(command[0]).resolve() != Path(sys.executable).resolve():
        return "another interpreter or kernel"
    # Read when packages and interpreter start: too late for a fork to heed.
    asked = {**os.environ, **request["env"]}
    for name in (name for name in asked if name == "PYTHONPATH" or name.endswith("_NUM_THREADS")):
        if request["env"].get(name) != os.environ.get(name):
            return f"another {name}"
    return None if len(descriptors) == 2 else "no descriptors"


def _end(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # it may not lead its group yet, or have ended by itself
        with suppress(OSError):
            kill(pid, signal.SIGKILL)


def main(path: str, *packages: str) -> None:
    """Import what kernels need, then listen at `path` for as long as standard input is open."""
    for name in packages or PACKAGES:
        with suppress(ImportError):  # kernels that need it fail as they would anyway
            importlib.import_module(name)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(64)
    Server(listener).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
