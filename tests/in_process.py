"""Notebooks without a kernel and commands without a start, where these are not what is tested: each imports torch."""

import json
import os
import socket
import socketserver
import sys
from base64 import b64encode
from importlib import import_module
from pathlib import Path

from IPython.core.displayhook import CapturingDisplayHook
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbformat.v4 import new_output
from papermill.engines import Engine, papermill_engines

from mule_lib.suite import cli, graph

# What the jobs of a suite find as python: hands its command over, but for those that contain {alone}.
PYTHON = """#!{python} -SE
import json, os, socket, sys
if {alone!r} in " ".join(sys.argv):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [json.dumps(sys.argv[2:]).encode()], [1, 2])
    sys.exit(server.recv(1) != b"0")
"""
IMPORTED = ("mule_lib.training.train", "mule_lib.evaluate.robustness", "mule_lib.evaluate.row", "mule_lib.report.page")


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
            with capture_output() as printed:
                shown = shell.display_pub.outputs
                shell.display_trap.hook = CapturingDisplayHook(shell, shown)
                result = shell.run_cell(cell.source)
            cell.outputs = [new_output("stream", text=printed.stdout)]
            for each in shown:
                data = {k: b64encode(v).decode() if isinstance(v, bytes) else v for k, v in each["data"].items()}
                cell.outputs.append(new_output("display_data", data=data, metadata=each["metadata"]))
            result.raise_error()
            nb_man.cell_complete(cell, index)


class Job(socketserver.BaseRequestHandler):
    """A command of `mule`, whose output goes where that of its client does."""

    def handle(self) -> None:
        words, outputs, *_ = socket.recv_fds(self.request, 2**16, 2)
        for number, output in enumerate(outputs, 1):
            os.dup2(output, number)
        sys.argv = json.loads(words)
        try:
            cli.main()
            self.request.sendall(b"0")
        except SystemExit as refused:
            print(refused, file=sys.stderr)
        sys.stdout.flush()


class Jobs(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """A fork of this process for each job, until the driver ends."""

    driver = 0

    def service_actions(self) -> None:
        super().service_actions()
        ended, status = os.waitpid(self.driver, os.WNOHANG)
        if ended:
            sys.exit(os.waitstatus_to_exitcode(status))


def main(folder: Path, alone: str) -> None:
    """The command of `mule` that is left in sys.argv, in a fork; so are its jobs, with what they import loaded once."""
    with Jobs(str(folder / "jobs"), Job) as jobs:
        text = PYTHON.format(python=sys.executable, alone=alone, address=jobs.server_address)
        (folder / "python").write_text(text, "utf-8")
        (folder / "python").chmod(0o755)
        jobs.driver = os.fork()
        if jobs.driver == 0:
            own = graph.environment()
            graph.environment = lambda: own | {"PATH": f"{folder}:{own['PATH']}"}
            sys.exit(cli.main())
        papermill_engines.register(None, InProcess)
        for name in IMPORTED:
            import_module(name)
        jobs.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv.pop(1)), sys.argv.pop(1))
