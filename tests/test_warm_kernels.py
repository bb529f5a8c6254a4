"""Warm kernels: forks of one process that behave, and end, like kernels that Jupyter starts itself."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel
from jupyter_client.provisioning import KernelProvisionerFactory

from mule_lib import warm_kernels
from mule_lib.warm_kernels import SOCKET, Forked, WarmProvisioner, fork
from mule_lib.warm_server import PACKAGES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
LIGHT = "ipykernel.ipkernel"


@pytest.fixture
def server(monkeypatch):
    """A server that has imported little, named in this process's environment."""
    with warm_kernels.warm_kernels(os.environ, LIGHT) as environment:
        monkeypatch.setenv(SOCKET, environment[SOCKET])
        wait(lambda: Path(environment[SOCKET]).exists())
        yield environment


@pytest.fixture
def jupyter(monkeypatch):
    """Jupyter's own registry, given back as it was."""
    factory = KernelProvisionerFactory.instance()
    monkeypatch.setattr(factory, "provisioners", dict(factory.provisioners))
    yield factory
    factory.default_provisioner_name = "local-provisioner"


def wait(happened, seconds=20.0):
    begun = time.monotonic()
    while not happened():
        assert time.monotonic() - begun < seconds, "it did not happen"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def kernel(tmp_path, **changes) -> Forked | None:
    """A kernel asked for by hand, which waits for a client that never comes."""
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", str(tmp_path / "connection.json")]
    return fork(changes.get("cmd", command), env={**os.environ, **changes.get("env", {})}, cwd=str(tmp_path))


def said(client, code: str) -> str:
    """What a cell prints."""
    heard = []
    reply = client.execute_interactive(
        code, timeout=30, output_hook=lambda m: heard.append(m["content"].get("text", ""))
    )
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(heard).strip()


def test_a_notebooks_kernel_is_a_fork_and_works_like_any_other(server, jupyter, tmp_path):
    """Folder and environment are those asked for, this library is read from disk, an interrupt reaches it."""
    warm_kernels.use()
    manager, client = start_new_kernel(
        kernel_name="python3", cwd=str(tmp_path), env={**os.environ, "A_NAME": "a value"}
    )
    try:
        assert isinstance(manager.provisioner, WarmProvisioner) and isinstance(manager.provisioner.process, Forked)
        where = said(client, "import os, sys; print(os.getcwd(), os.environ['A_NAME'], os.getpid())").split()
        assert where == [str(tmp_path), "a", "value", str(manager.provisioner.pid)]
        assert said(client, "print([m for m in sys.modules if m.startswith('mule_lib')])") == "[]"
        client.execute("import time; time.sleep(60)")
        time.sleep(0.5)
        manager.interrupt_kernel()
        assert client.get_shell_msg(timeout=30)["content"]["ename"] == "KeyboardInterrupt"
        assert said(client, "print('still here')") == "still here"
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    wait(lambda: not alive(int(where[-1])))


def test_without_a_server_kernels_start_as_usual(jupyter, monkeypatch, tmp_path):
    monkeypatch.setenv(SOCKET, str(tmp_path / "nobody"))
    warm_kernels.use()
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        assert isinstance(manager.provisioner, WarmProvisioner) and not isinstance(manager.provisioner.process, Forked)
        assert said(client, "print(1 + 1)") == "2"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_nothing_changes_for_those_who_did_not_ask(jupyter, monkeypatch):
    monkeypatch.delenv(SOCKET, raising=False)
    warm_kernels.use()
    assert jupyter.default_provisioner_name == "local-provisioner"


def test_what_a_fork_could_not_be_is_declined(server, tmp_path):
    """Other threads than the server's would not be seen by libraries that are loaded already."""
    assert kernel(tmp_path, env={"OMP_NUM_THREADS": "7"}) is None
    assert kernel(tmp_path, env={"PYTHONPATH": "/elsewhere"}) is None
    assert kernel(tmp_path, cmd=["/usr/bin/env", "-m", "ipykernel_launcher"]) is None
    assert kernel(tmp_path, cmd=[sys.executable, "-m", "another_kernel"]) is None


def test_how_a_kernel_ended_is_told(server, tmp_path):
    started = kernel(tmp_path)
    assert started.poll() is None
    started.kill()
    assert started.wait(timeout=20) == started.poll() == -signal.SIGKILL
    started.terminate()  # nothing left to end, and no error


def test_a_kernel_ends_with_whoever_asked_for_it(server, tmp_path):
    """A job that is killed leaves no kernel behind."""
    started = kernel(tmp_path)
    assert alive(started.pid)
    started.connection.close()
    wait(lambda: not alive(started.pid))


def test_kernels_end_with_the_server(tmp_path, monkeypatch):
    with warm_kernels.warm_kernels(os.environ, LIGHT) as environment:
        monkeypatch.setenv(SOCKET, environment[SOCKET])
        wait(lambda: Path(environment[SOCKET]).exists())
        started = kernel(tmp_path)
    wait(lambda: not alive(started.pid))
    assert started.wait(timeout=20) == -signal.SIGKILL


def test_none_of_ours_is_imported_before_the_fork():
    assert not [name for name in PACKAGES if name.startswith("mule_lib")]
