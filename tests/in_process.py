"""Notebooks without a kernel and commands without a start, where neither is what is tested: each imports torch anew."""

import importlib
import json
import os
import socket
import socketserver
import sys
from base64 import b64encode
from pathlib import Path

from IPython.core.displayhook import CapturingDisplayHook
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbformat.v4 import new_output
from papermill.engines import Engine, papermill_engines

from mule_lib.suite import cli

IMPORTED = ("mule_lib.training", "mule_lib.evaluate.robustness", "mule_lib.evaluate.row", "mule_lib.report.page")
PYTHON = """#!{python} -SE
import json, os, socket, sys
if {own!r} in " ".join(sys.argv):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [json.dumps(sys.argv[2:]).encode()], [1, 2])
    sys.exit(server.recv(1) != b"0")
"""


class InProcess(Engine):
    """Papermill's engine for this process: cells run in one IPython shell, and keep what they show."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **_) -> None:
        shell = InteractiveShell.instance()
        shell.reset(new_session=False)
        for index, cell in enumerate(nb_man.nb.cells):
            if cell.cell_type != "code":
                continue
            nb_man.cell_start(cell, index)
            with capture_output() as shown:
                outputs = shell.display_pub.outputs
                shell.display_trap.hook = CapturingDisplayHook(shell, outputs)
                result = shell.run_cell(cell.source)
            cell.outputs = [new_output("stream", text=shown.stdout)]
            for each in outputs:
                data = {k: b64encode(v).decode() if isinstance(v, bytes) else v for k, v in each["data"].items()}
                cell.outputs.append(new_output("display_data", data=data, metadata=each["metadata"]))
            result.raise_error()
            nb_man.cell_complete(cell, index)


def no_kernels() -> None:
    """From here on papermill runs notebooks in this process."""
    papermill_engines.register(None, InProcess)


class Job(socketserver.BaseRequestHandler):
    """A command of a suite, in a fork of the process that has imported what it needs."""

    def handle(self) -> None:
        words, outputs, *_ = socket.recv_fds(self.request, 2**16, 2)
        for ours, theirs in zip((1, 2), outputs, strict=True):
            os.dup2(theirs, ours)
        sys.argv = json.loads(words)
        try:
            cli.main()
            self.request.sendall(b"0")
        except SystemExit as refused:
            print(refused, file=sys.stderr)
        finally:
            sys.stdout.flush()


class Jobs(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Forks one process for each job."""


def python_for_jobs(folder: Path, *, own: str) -> Jobs:
    """The server of `python` in `folder`, which takes commands of `mule`; those with `own` in them start as always."""
    server = Jobs(str(folder / "jobs"), Job)
    text = PYTHON.format(python=sys.executable, own=own, address=str(folder / "jobs"))
    (folder / "python").write_text(text, "utf-8")
    (folder / "python").chmod(0o755)
    return server


if __name__ == "__main__":
    with python_for_jobs(Path(sys.argv[1]), own=sys.argv[2]) as server:
        no_kernels()
        for name in IMPORTED:
            importlib.import_module(name)
        server.serve_forever()
