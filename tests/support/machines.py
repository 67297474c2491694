"""Simulated machines in Linux namespaces, each with its own processes, network address and home directory.

Killing a machine's first process ends all its others. `ssh` and `rsync` are replaced by scripts that talk to the small
server that each machine runs.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

SSH_PORT = 22
STARTUP_SECONDS = 60.0


def can_make_machines() -> bool:
    """Whether this process may make namespaces."""
    if not (shutil.which("ip") and shutil.which("unshare")):
        return False
    attempt = ["unshare", "--net", "--pid", "--mount", "--fork", "ip", "link", "add", "lan", "type", "bridge"]
    return subprocess.run(attempt, capture_output=True, check=False).returncode == 0


class Machine:
    """A machine, with its home directory and a way to run commands."""

    def __init__(self, name: str, home: Path) -> None:
        self.home = home
        self._environment = {
            "HOME": str(home),
            "PATH": f"{home / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
            "RAY_TMPDIR": "/tmp",
            "TMPDIR": str(home / "tmp"),
            "USER": name,
        }
        for folder in ("bin", "ray", "tmp"):
            (home / folder).mkdir(parents=True)
        (home / ".bash_profile").write_text("PATH=~/bin:$PATH\n")
        for program in ("ssh", "rsync"):
            script = home / "bin" / program
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {program} "$@"\n')
            script.chmod(0o755)
        # the first process is a shell, which reaps orphans; Ray's folder has the same path everywhere
        boot = (
            f"hostname {name}; mount --bind {home / 'ray'} /tmp/ray; {sys.executable} {__file__} serve; exit"
        )
        self.process = subprocess.Popen(
            [
                "unshare",
                "--net",
                "--pid",
                "--uts",
                "--mount",
                "--mount-proc",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                boot,
            ],
            env=self._environment,
            cwd=home,
        )

    def run(
        self, command: str, cwd: Path | None = None, timeout: float = 300
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in a shell on this machine."""
        into = ["nsenter", f"--target={_first_child(self.process.pid)}", "--net", "--pid", "--uts", "--mount"]
        return subprocess.run(
            [*into, f"--wdns={cwd or self.home}", "bash", "-c", command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )


@contextmanager
def machines(folder: Path, addresses: dict[str, str]) -> Iterator[dict[str, Machine]]:
    """Machines on a private network, by name, while the context lasts.

    Args:
        folder: parent of their home directories.
        addresses: name -> IPv4 address; all in one /24 network.
    """
    Path("/tmp/ray").mkdir(exist_ok=True)
    switch = subprocess.Popen(["unshare", "--net", "--fork", "--kill-child", "sleep", "infinity"])
    started: dict[str, Machine] = {}
    try:
        _wait_for_network(switch.pid)
        _ip(switch.pid, "link add lan type bridge", "link set lan up")
        for name, address in addresses.items():
            started[name] = Machine(name, folder / name)
            _plug_in(started[name].process.pid, name, address, switch.pid)
        yield started
    finally:
        for process in (*(machine.process for machine in started.values()), switch):
            process.kill()
            process.wait()


def _plug_in(pid: int, name: str, address: str, switch: int) -> None:
    """Connect a machine to the switch."""
    _wait_for_network(pid)
    _ip(switch, f"link add {name} type veth peer name eth0 netns {pid}", f"link set {name} master lan up")
    _ip(
        pid,
        "link set lo up",
        f"addr add {address}/24 dev eth0",
        "link set eth0 up",
        "route add default dev eth0",
    )


def _ip(pid: int, *commands: str) -> None:
    for command in commands:
        subprocess.run(["nsenter", f"--target={pid}", "--net", "ip", *command.split()], check=True)


def _wait_for_network(pid: int) -> None:
    """Wait until a new process is in a network namespace of its own."""
    deadline = time.monotonic() + STARTUP_SECONDS
    while Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _first_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _serve() -> None:
    """Serve requests of other machines: run a command, receive files, send files."""
    with Listener(("0.0.0.0", SSH_PORT), backlog=16) as door:
        while True:
            threading.Thread(target=_answer, args=(door.accept(),), daemon=True).start()


def _answer(caller: Connection) -> None:
    request, path, packed = caller.recv()
    if request == "run":
        with tempfile.TemporaryFile() as output:  # not a pipe, because a daemon would keep it open
            code = subprocess.call(
                ["bash", "-c", path], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            output.seek(0)
            caller.send((code, output.read()))
    elif request == "put":
        caller.send((_unpack(packed, path), b""))
    else:
        caller.send((0, _pack(path)))


def _pack(path: str) -> bytes:
    """Pack a file, or the contents of a folder if the path ends with a slash, as in rsync."""
    buffer, source = BytesIO(), Path(path).expanduser()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(source, arcname="." if path.endswith("/") else source.name)
    return buffer.getvalue()


def _unpack(packed: bytes, path: str) -> int:
    target = Path(path).expanduser()
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        members = archive.getmembers()
        if members[0].name == "." or path.endswith("/"):
            archive.extractall(target, filter="data")
        else:
            members[0].name = target.name
            archive.extract(members[0], target.parent, filter="data")
    return 0


def _ask(host: str, request: str, path: str, packed: bytes = b"") -> bytes:
    """Send a request to a machine and return its answer; exit with the code of a remote command."""
    with Client((host.rpartition("@")[2], SSH_PORT)) as connection:
        connection.send((request, path, packed))
        code, output = connection.recv()
    if request == "run":
        sys.stdout.buffer.write(output)
        sys.stdout.flush()
        sys.exit(code)
    return bytes(output)


def _ssh(arguments: list[str]) -> None:
    place = next(
        i for i, argument in enumerate(arguments) if "@" in argument and not argument.startswith("-")
    )
    _ask(arguments[place], "run", " ".join(arguments[place + 1 :]))


def _rsync(arguments: list[str]) -> None:
    source, target = arguments[-2:]
    if "@" in target:
        host, _, path = target.partition(":")
        _ask(host, "put", path, _pack(source))
    else:
        host, _, path = source.partition(":")
        _unpack(_ask(host, "get", path), target)


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    {"serve": lambda _: _serve(), "ssh": _ssh, "rsync": _rsync}[role](rest)
