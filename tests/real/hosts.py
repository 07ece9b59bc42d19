"""Several hosts on one machine. Each has its own network, process and mount namespace, sshd, home, /tmp and /dev/shm.

The hosts are connected by their own switch, without access to other networks. If a host's first process dies, all
processes of the host die. The hosts share only a virtual environment. Needs root and COMMANDS.
"""

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HOME = Path(pwd.getpwuid(0).pw_dir)
ROOT = Path(__file__).parents[2]
VENV = Path(sys.prefix)
NETWORK = "10.77.0"
SPACES = ("--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")
COMMANDS = ("sshd", "ssh", "ssh-keygen", "rsync", "redis-server", "ip", "pgrep")
"""Commands that hosts need; `.ci/run` installs them."""
SSHD = """
Port 22
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
"""


def why_not() -> str | None:
    """The reason why hosts cannot run on this machine, or None."""
    if os.geteuid() != 0:
        return "hosts in namespaces need root"
    tried = subprocess.run(["unshare", *SPACES, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        return f"`unshare` is refused here ({tried.stderr.strip()}); it takes CAP_SYS_ADMIN"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [command for command in COMMANDS if shutil.which(command, path=path) is None]
    return f"hosts need {', '.join(missing)}; .ci/run installs them" if missing else None


class Host:
    def __init__(self, folder: Path, name: str, address: str, mounts: Sequence[tuple[Path, Path]] = ()) -> None:
        """`mounts`: pairs (source, target) in addition to the home and the environment."""
        self.name = name
        self.address = address
        self.folder = folder / name
        self._keys = folder
        self._mounts = mounts
        self.start()

    def start(self) -> None:
        """Start the host, also after `kill`: the disk is kept, memory and /tmp are empty."""
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        for part in ("home", "tmp"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        shutil.copy(self._keys / "key.pub", self.folder / "authorized_keys")
        shutil.copy(self._keys / "host_key", self.folder / "host_key")
        (self.folder / "host_key").chmod(0o600)
        (self.folder / "hosts").write_text((self._keys / "hosts").read_text())
        self._log = (self.folder / "init.log").open("ab")
        self._outer = subprocess.Popen(
            ["unshare", *SPACES, "bash", "-c", self._init()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        until(f"first process of {self.name}", lambda: bool(children.read_text().split()))
        self.pid = int(children.read_text().split()[0])

    def _init(self) -> str:
        """Script of the first process: mounts, then starts sshd when the network is up. It reaps orphaned processes."""
        inside = Path("/run/host")  # the folder itself may be in a directory that is hidden below
        lines = ["set -e", "mount --make-rprivate /", f"hostname {self.name}", "mount -t tmpfs tmpfs /run"]
        lines += [f"mkdir -p {inside} /run/sshd", f"mount --bind {self.folder} {inside}"]
        shared = [(path, path) for path in (VENV, Path(sys.base_prefix))]
        for hidden, new in ((HOME, inside / "home"), (Path("/tmp"), inside / "tmp")):
            for what, where in (*shared, *self._mounts):
                if where.is_relative_to(hidden):
                    place = new / where.relative_to(hidden)
                    lines += [f"mkdir -p {place}", f"mount --bind {what} {place}"]
        lines += [f"mount --rbind {inside}/home {HOME}", f"mount --rbind {inside}/tmp /tmp", "chmod 1777 /tmp"]
        lines += ["mount -t tmpfs tmpfs /dev/shm", f"mount --bind {inside}/hosts /etc/hosts"]
        conf = SSHD.format(address=self.address, folder=inside)
        lines += [f"printf %s {shlex.quote(conf)} > /run/sshd.conf", "ip link set lo up"]
        lines += [f"until ip -4 addr show eth0 2>/dev/null | grep -q {self.address}/; do sleep 0.05; done"]
        lines += ["cd /", "/usr/sbin/sshd -D -e -f /run/sshd.conf & wait $!"]
        return "\n".join(lines)

    def command(self, command: str) -> list[str]:
        """The command as a login shell on the host runs it."""
        clean = ["env", "-i", f"HOME={HOME}", "USER=root", "LOGNAME=root", "TERM=dumb", "LANG=C.UTF-8"]
        clean += ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        spaces = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", f"--wd={HOME}"]
        return [*spaces, *clean, "bash", "-c", f"[ -f ~/.bashrc ] && . ~/.bashrc; {command}"]

    def run(self, command: str, timeout_s: float = 120, check: bool = True) -> str:
        """Run a command on the host; returns its output. Raises: AssertionError with the output."""
        done = subprocess.run(
            self.command(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )
        assert not check or done.returncode == 0, f"{self.name}: {command}\n{done.stdout[-4000:]}"
        return done.stdout

    def kill(self) -> None:
        """Kill all processes of the host at once, as in a power failure."""
        os.kill(self.pid, signal.SIGKILL)
        self._outer.wait(30)
        self._log.close()

    @property
    def alive(self) -> bool:
        return self._outer.poll() is None


class Hosts:
    def __init__(self, folder: Path, names: Sequence[str], mounts: dict[str, Sequence[tuple[Path, Path]]]) -> None:
        self.folder = folder
        for key in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 1)}
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        self._switch = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        until("switch", lambda: os.readlink(f"/proc/{self._switch.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
        self._on_switch("ip link add br0 type bridge && ip link set br0 up")
        self.by_name = {name: Host(folder, name, address, mounts.get(name, ())) for name, address in addresses.items()}
        for host in self.by_name.values():
            self.connect(host)

    def __getitem__(self, name: str) -> Host:
        return self.by_name[name]

    def connect(self, host: Host) -> None:
        """Connect the host to the switch and wait for its sshd."""
        port = f"to-{host.name}"
        self._on_switch(
            f"ip link del {port} 2>/dev/null; ip link add {port} type veth peer name eth0 netns {host.pid} && "
            f"ip link set {port} master br0 up && nsenter -t {host.pid} -n sh -c "
            f"'ip addr add {host.address}/24 dev eth0 && ip link set eth0 up'"
        )
        probe = ["nsenter", "-t", str(host.pid), "-n", "bash", "-c", f"echo > /dev/tcp/{host.address}/22"]
        until(f"sshd on {host.name}", lambda: subprocess.run(probe, capture_output=True).returncode == 0)

    def close(self) -> None:
        for host in self.by_name.values():
            if host.alive:
                host.kill()
        self._switch.kill()
        self._switch.wait(10)

    def _on_switch(self, command: str) -> None:
        subprocess.run(["nsenter", "-t", str(self._switch.pid), "-n", "sh", "-c", command], check=True)


@contextmanager
def hosts(
    folder: Path, names: Sequence[str], mounts: dict[str, Sequence[tuple[Path, Path]]] | None = None
) -> Iterator[Hosts]:
    made = Hosts(folder, names, mounts or {})
    try:
        yield made
    finally:
        made.close()


def until(what: str, condition: Callable[[], bool], timeout_s: float = 30.0, pause_s: float = 0.1) -> float:
    """Wait for the condition; returns the seconds it took. Raises: AssertionError naming `what`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + timeout_s, f"no {what} within {timeout_s:.0f} s"
        time.sleep(pause_s)
    return time.monotonic() - started
