"""Notebooks without a kernel and commands without a start, where these are not what is tested: each imports torch."""

import json
import os
import socket
import sys
from base64 import b64encode
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from IPython.core.displayhook import CapturingDisplayHook
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbformat.v4 import new_output
from papermill.engines import Engine, papermill_engines

from mule_lib.suite import cli, graph

# What the steps of a suite find as python: hands its command over, but for those that contain {alone}.
PYTHON = """#!{python} -SE
import json, os, socket, sys
if {alone!r} in " ".join(sys.argv):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [json.dumps(sys.argv[2:]).encode()], [1, 2])
    sys.exit(server.recv(1) != b"0")
"""
IMPORTED = ("training.train", "evaluate.robustness", "evaluate.row", "report.page")


class InProcess(Engine):
    """Papermill's engine for this process: cells run in one IPython shell, and keep what they show."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **_) -> None:
        shell = InteractiveShell.instance()
        shell.reset(new_session=False)
        shell.user_module.__spec__ = None  # the shell's module is now __main__, whose spec spawned processes ask for
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


def run_for(client: socket.socket) -> None:
    """Run a client's command of `mule`, its output going where the client's would."""
    words, outputs, *_ = socket.recv_fds(client, 2**16, 2)
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
    sys.argv = json.loads(words)
    cli.main()
    client.sendall(b"0")


def main(folder: Path, alone: str) -> None:
    """The command of `mule` left in sys.argv; its steps are forks of this process, which imported what they need."""
    with socket.socket(socket.AF_UNIX) as steps:
        steps.bind(address := str(folder / "steps"))
        steps.listen()
        (folder / "python").write_text(PYTHON.format(python=sys.executable, alone=alone, address=address), "utf-8")
        (folder / "python").chmod(0o755)
        if not (driver := os.fork()):
            own = graph.environment()
            graph.environment = lambda: own | {"PATH": f"{folder}:{own['PATH']}"}
            return cli.main()
        papermill_engines.register(None, InProcess)
        for name in IMPORTED:
            import_module(f"mule_lib.{name}")
        steps.settimeout(0.5)
        while not (ended := os.waitpid(driver, os.WNOHANG))[0]:
            with suppress(TimeoutError), steps.accept()[0] as client:
                if not os.fork():
                    return run_for(client)
        sys.exit(os.waitstatus_to_exitcode(ended[1]))


if __name__ == "__main__":
    main(Path(sys.argv.pop(1)), sys.argv.pop(1))
