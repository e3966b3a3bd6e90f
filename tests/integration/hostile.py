"""Functions that try to get out of their worker: copied into a package and run there."""

import contextlib
import ctypes
import errno
import os
import platform
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

LIBC = ctypes.CDLL(None, use_errno=True)
SYSTEM_TREES = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", sys.base_prefix)
NUMBERS = {
    "x86_64": {
        "clone": 56,
        "ptrace": 101,
        "pivot_root": 155,
        "chroot": 161,
        "mount": 165,
        "umount2": 166,
        "reboot": 169,
        "init_module": 175,
        "keyctl": 250,
        "unshare": 272,
        "perf_event_open": 298,
        "open_by_handle_at": 304,
        "setns": 308,
        "process_vm_readv": 310,
        "bpf": 321,
        "userfaultfd": 323,
        "swapon": 167,
    },
    "aarch64": {
        "clone": 220,
        "ptrace": 117,
        "pivot_root": 41,
        "chroot": 51,
        "mount": 40,
        "umount2": 39,
        "reboot": 142,
        "init_module": 105,
        "keyctl": 219,
        "unshare": 97,
        "perf_event_open": 241,
        "open_by_handle_at": 265,
        "setns": 268,
        "process_vm_readv": 270,
        "bpf": 280,
        "userfaultfd": 282,
        "swapon": 224,
    },
}[platform.machine()]
NEW_NUMBERS = {"io_uring_setup": 425, "open_tree": 428, "fsopen": 430, "mount_setattr": 442}
NEW_NAMESPACES = {
    "mnt": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}


def main(action, context=None, **arguments):
    return globals()[action](**arguments)


def outcome(call, *arguments, **keywords):
    """The name of the errno that a call fails with, or None."""
    try:
        call(*arguments, **keywords)
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


def echo(value=None):
    return value


def environment():
    return dict(os.environ)


def identity():
    lines = head("/proc/self/status").decode().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Groups")
    return {"ids": os.getresuid() + os.getresgid(), **{name: fields[name].strip() for name in names}}


def find(reversed_canary):
    """Every readable file that holds the canary, in all of the file system but the system's own trees."""
    canary = reversed_canary[::-1].encode()
    found, seen = [], 0
    for directory, subdirectories, names in os.walk("/"):
        if directory.startswith(SYSTEM_TREES):
            subdirectories[:] = []
            continue
        for name in subdirectories + names:
            path = os.path.join(directory, name)
            if canary in os.fsencode(path):
                found.append(path)
        for name in names:
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                seen += 1
                if is_plain(path) and canary in head(path):
                    found.append(path)
    return {"found": found, "seen": seen}


def is_plain(path):
    """Not a device, a pipe, or the memory of this process, which has the canary in it."""
    own = path.startswith(("/proc/self/", f"/proc/{os.getpid()}/", "/proc/thread-self/"))
    return stat.S_ISREG(os.stat(path).st_mode) and not (
        own and path.endswith(("/mem", "/pagemap", "/clear_refs"))
    )


def head(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, 1 << 20)
    finally:
        os.close(descriptor)


def reach(paths):
    """What happens when foreign paths are opened and connected to."""
    results = {}
    for path in paths:
        with socket.socket(socket.AF_UNIX) as peer:
            results[path] = [outcome(os.stat, path), outcome(peer.connect, path)]
    return results


def pids():
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def descriptors():
    """What is open here: kind of file by number."""
    result = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            result[name] = os.readlink(f"/proc/self/fd/{name}").split(":")[0]
    return result


def network(port, abstract):
    results = {}
    for name, family, address in (
        ("metadata", socket.AF_INET, ("169.254.169.254", 80)),
        ("outside", socket.AF_INET, ("192.0.2.1", 53)),
        ("outside6", socket.AF_INET6, ("2001:db8::1", 53)),
    ):
        with socket.socket(family, socket.SOCK_DGRAM) as peer:
            results[name] = outcome(peer.connect, address)
    with socket.socket() as peer:
        results["loopback"] = outcome(peer.connect, ("127.0.0.1", port))
    with socket.socket(socket.AF_UNIX) as peer:
        results["abstract"] = outcome(peer.connect, "\0" + abstract)
    results["interfaces"] = [name for _, name in socket.if_nameindex()]
    return results


def own_loopback():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as peer,
    ):
        accepted, _ = server.accept()
        with accepted:
            peer.sendall(b"hello")
            return accepted.recv(5).decode()


def families():
    names = {"packet": 17, "vsock": 40, "alg": 38, "bluetooth": 31, "xdp": 44, "can": 29}
    results = {name: outcome(socket.socket, family, socket.SOCK_DGRAM) for name, family in names.items()}
    results["netlink audit"] = outcome(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 9)
    results["unix"] = outcome(socket.socket, socket.AF_UNIX, socket.SOCK_STREAM)
    return results


def syscall(number, *arguments):
    """The name of the errno that a system call fails with, or None."""
    ctypes.set_errno(0)
    result = LIBC.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments))
    return errno.errorcode[ctypes.get_errno()] if result == -1 else None


def denied_calls():
    results = {
        name: syscall(number, 0, 0, 0, 0, 0, 0)
        for name, number in (NUMBERS | NEW_NUMBERS).items()
        if name != "clone"
    }
    for name, flag in NEW_NAMESPACES.items():
        results[f"unshare {name}"] = syscall(NUMBERS["unshare"], flag)
        results[f"clone {name}"] = syscall(NUMBERS["clone"], flag | signal.SIGCHLD, 0, 0, 0, 0)
    results["TIOCSTI"] = ioctl(0x5412)
    results["PR_SET_CHILD_SUBREAPER"] = prctl(36, 0)
    results["PR_SET_DUMPABLE"] = prctl(4, 0)
    return results


def clone3():
    return syscall(435, 0, 0)


def ioctl(request):
    ctypes.set_errno(0)
    return errno.errorcode[ctypes.get_errno()] if LIBC.ioctl(0, ctypes.c_ulong(request), b"x") == -1 else None


def prctl(option, value):
    ctypes.set_errno(0)
    result = LIBC.prctl(ctypes.c_int(option), *(ctypes.c_ulong(each) for each in (value, 0, 0, 0)))
    return errno.errorcode[ctypes.get_errno()] if result == -1 else None


def become_root():
    results = {
        "setuid": outcome(os.setuid, 0),
        "setgid": outcome(os.setgid, 0),
        "setgroups": outcome(os.setgroups, [0]),
        "chown": outcome(os.chown, "/tmp", 0, 0),
        "mknod": outcome(os.mknod, "/tmp/disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0)),
    }
    shell = "/tmp/shell"
    with open("/bin/sh", "rb") as source, open(shell, "wb") as target:
        target.write(source.read())
    os.chmod(shell, 0o6755)
    ids = subprocess.run([shell, "-p", "-c", "id -u; id -g"], capture_output=True, text=True).stdout.split()
    return {**results, "setuid file": ids}


def setuid_programs():
    """What the system's own set-user-id programs make of this user."""
    found = [f"/usr/bin/{name}" for name in os.listdir("/usr/bin") if is_setuid(f"/usr/bin/{name}")]
    sudo = subprocess.run(["/usr/bin/su", "-c", "id -u"], capture_output=True, text=True) if found else None
    return {"found": found, "su": sudo.stdout if sudo else ""}


def is_setuid(path):
    with contextlib.suppress(OSError):
        return bool(os.stat(path).st_mode & stat.S_ISUID)
    return False


def peek_at_supervisor():
    names = ("mem", "environ", "maps", "fd", "root", "cwd", "exe", "task/1/mem", "auxv", "stack", "io")
    results = {}
    for name in names:
        path = f"/proc/1/{name}"
        action = os.listdir if name in ("fd", "root", "cwd") else head
        try:
            results[name] = f"read {action(path)!r:.60}"
        except OSError as error:
            results[name] = errno.errorcode[error.errno]
    results["write mem"] = outcome(open, "/proc/1/mem", "r+b")
    results["oom_score_adj"] = outcome(write, "/proc/1/oom_score_adj")
    return results


def signal_supervisor():
    """Send every signal to process 1."""
    return {number: outcome(os.kill, 1, number) for number in range(1, 65) if number not in (32, 33)}


def kill_all():
    os.kill(-1, signal.SIGKILL)


def write_everywhere():
    paths = ["/x", "/usr/x", "/etc/x", "/etc/passwd", "/dev/x", "/code/x", "/proc/sys/kernel/core_pattern"]
    paths += ["/function/x", sys.base_prefix + "/x", "/proc/sysrq-trigger"]
    return {path: outcome(write, path) for path in paths}


def write(path):
    with open(path, "a") as file:
        file.write("1000")


def devices():
    return sorted(os.listdir("/dev"))


def links():
    """Links from the scratch space to elsewhere: where do they lead?"""
    for name, target in {
        "up": "../" * 20 + "root",
        "init": "/proc/1/root",
        "self": "/proc/self/root" + os.sep + "root",
    }.items():
        os.symlink(target, f"/tmp/{name}")
    results = {name: outcome(os.listdir, f"/tmp/{name}/.ssh") for name in ("up", "init", "self")}
    results["hard link"] = outcome(os.link, "/etc/passwd", "/tmp/passwd")
    results["hard link of code"] = outcome(os.link, "/code/main.py", "/tmp/main.py")
    results["up and away"] = sorted(os.listdir("../" * 30)) == sorted(os.listdir("/"))
    return results


def plant(name, text):
    """Leave something where another function might find it."""
    for directory in ("/tmp", "/dev/shm"):
        with open(f"{directory}/{name}", "w") as file:
            file.write(text)
    server = socket.socket(socket.AF_UNIX)
    server.bind("\0" + name)
    server.listen()
    threading.Thread(target=server.accept, daemon=True).start()
    return os.listdir("/tmp")


def fork_bomb():
    while True:
        with contextlib.suppress(OSError):
            os.fork()


def polite_fork_bomb(count):
    """Fork until that fails."""
    children = []
    try:
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            children.append(pid)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return count


def daemonize():
    """Leave processes behind in every way there is."""
    pids = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            os.setsid()
            if os.fork() == 0:
                signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
                time.sleep(3600)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    return len(pids)


def sleep(seconds):
    time.sleep(seconds)


def eat_memory(size):
    return len(bytearray(b"x") * size)


def eat_shared_memory(size):
    return fill("/dev/shm/big", size)


def fill(path, size):
    with open(path, "wb", buffering=0) as file:
        for _ in range(size // 65536):
            file.write(b"x" * 65536)
    return size


def create_files(count):
    for number in range(count):
        os.close(os.open(f"/tmp/{number}", os.O_CREAT | os.O_WRONLY))
    return count


def mounts():
    """Mount points by path: options."""
    return {line.split()[4]: line.split()[5] for line in open("/proc/self/mountinfo").read().splitlines()}
