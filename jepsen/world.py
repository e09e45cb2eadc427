"""Networks and disks of a run: a network namespace for each broker, joined by
a bridge, and two nested file systems for each broker, so that its power can
be cut. All lies in namespaces of the run's own (run.py enters them): however a
run ends, nothing of it is left."""
import fcntl
import os
import random
import shutil
import struct
import subprocess
import time

SUBNET = "10.77.0."
CLIENTS = SUBNET + "250"
FS_IOC_SHUTDOWN = 0x8004587d
SHUTDOWN_NO_LOG_FLUSH = struct.pack("I", 2)
MIB = 1 << 20
COMMAND_S = 600  # a machine that does much else may be that slow


class Impossible(Exception):
    """This machine cannot do it; the text says what is missing."""


def command(*args, stdin=None, check=True):
    """Runs a small system command; its output."""
    done = subprocess.run([str(a) for a in args], input=stdin,
                          timeout=COMMAND_S,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    if check and done.returncode != 0:
        raise Impossible("%s: %s" % (" ".join(str(a) for a in args)[:80],
                                     done.stdout.strip()[:300]))
    return done.stdout


def address(number):
    return SUBNET + str(number)


def in_namespace(number, args):
    """The same command in the network of a broker."""
    return ["nsenter", "--net=/run/netns/b%d" % number, "--"] + args


class Network:
    """Brokers 1..n, and the clients on the bridge itself."""

    def __init__(self, n):
        self.n = n
        self.cuts = {}   # who -> set of (source, destination) addresses
        self.harms = {}  # who -> lines of rules in the brokers' way
        os.makedirs("/run/netns", exist_ok=True)
        command("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        command("ip", "link", "set", "lo", "up")
        command("ip", "link", "add", "br0", "type", "bridge")
        command("ip", "addr", "add", CLIENTS + "/24", "dev", "br0")
        command("ip", "link", "set", "br0", "up")
        for i in range(1, n + 1):
            command("ip", "netns", "add", "b%d" % i)
            command("ip", "link", "add", "v%d" % i, "type", "veth", "peer",
                    "name", "eth0", "netns", "b%d" % i)
            command("ip", "link", "set", "v%d" % i, "master", "br0")
            command("ip", "link", "set", "v%d" % i, "up")
            for rest in (["addr", "add", address(i) + "/24", "dev", "eth0"],
                         ["link", "set", "eth0", "up"],
                         ["link", "set", "lo", "up"]):
                command(*in_namespace(i, ["ip"] + rest))

    def probe_cuts(self):
        """Packets can be dropped one way."""
        self.cut("probe", {(address(1), address(2))})
        try:
            there = self.ping(1, 2)
        finally:
            self.heal("probe")
        if there or not self.ping(1, 2):
            raise Impossible("nft: a cut of the bridge has no effect")

    def probe_loss(self):
        self.harm("probe", "numgen random mod 100 < 20 drop")
        self.unharm("probe")

    def resets(self, number, per_mille):
        """So many of the packets that reach a broker are answered by the end
        of their connection."""
        text = "add table ip jepsen\ndelete table ip jepsen\n"
        if per_mille > 0:
            text += ("table ip jepsen {\n chain input {\n"
                     "  type filter hook input priority 0;\n"
                     "  tcp flags & (syn | rst) == 0 numgen random mod 1000 "
                     "< %d reject with tcp reset\n }\n}\n" % per_mille)
        command(*in_namespace(number, ["nft", "-f", "-"]), stdin=text)

    def probe_resets(self):
        self.resets(1, 5)
        self.resets(1, 0)

    def ping(self, a, b):
        return subprocess.run(
            in_namespace(a, ["python3", "-c", PING, address(a), address(b)]),
            stdout=subprocess.DEVNULL).returncode == 0

    def cut(self, who, pairs):
        """Packets from the one to the other are dropped, one way."""
        self.cuts[who] = set(pairs)
        self.apply()

    def harm(self, who, *rules):
        """Rules for packets on their way, as nft has them."""
        self.harms[who] = list(rules)
        self.apply()

    def heal(self, who):
        self.cuts.pop(who, None)
        self.apply()

    def unharm(self, who):
        self.harms.pop(who, None)
        self.apply()

    def apply(self):
        """One transaction: all that holds from now on."""
        rules = ["ip saddr %s ip daddr %s drop" % p
                 for pairs in self.cuts.values() for p in sorted(pairs)]
        rules += [r for lines in self.harms.values() for r in lines]
        text = "add table bridge jepsen\ndelete table bridge jepsen\n"
        if rules:
            text += "table bridge jepsen {\n"
            for hook in ("forward", "input", "output"):
                text += (" chain %s {\n  type filter hook %s priority 0;\n"
                         "  %s\n }\n" % (hook, hook, "\n  ".join(rules)))
            text += "}\n"
        command("nft", "-f", "-", stdin=text)


# A UDP packet there; ends with 0 if it arrives. (Both ends need no ping tool.)
PING = """
import socket, subprocess, sys
a, b = sys.argv[1:]
listener = subprocess.Popen(
    ["nsenter", "--net=/run/netns/b" + b.split(".")[-1], "--", sys.executable,
     "-c", "import socket,sys\\n"
     "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\\n"
     "s.bind(('0.0.0.0',7));s.settimeout(1.0);print('on',flush=True)\\n"
     "try: s.recv(9)\\nexcept OSError: sys.exit(1)\\n"],
    stdout=subprocess.PIPE)
listener.stdout.readline()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(3):
    s.sendto(b"x", (b, 7))
sys.exit(listener.wait())
"""


class Disk:
    """A broker's file system: ext4 in an image that lies on an ext4 of its
    own. Cutting the power shuts the outer one down without its journal: what
    the inner one had not synced, direct writes included, is gone."""

    def __init__(self, home, number, size_mib):
        self.number = number
        self.outer_image = os.path.join(home, "%d.outer" % number)
        self.outer = os.path.join(home, "outer-%d" % number)
        self.path = os.path.join(home, "disk-%d" % number)
        self.image = os.path.join(self.outer, "inner")
        for path in (self.outer, self.path):
            os.makedirs(path)
        make_image(self.outer_image, size_mib + size_mib // 8 + 64)
        self.mount_outer()
        make_image(self.image, size_mib)
        self.mount_inner()

    def mount_outer(self):
        command("mount", "-o", "loop,commit=600", self.outer_image, self.outer)

    def mount_inner(self):
        command("mount", "-o", "loop,commit=600", self.image, self.path)

    def power_cut(self):
        """From here on nothing reaches the disk, and all that is not synced
        is lost. The processes on it are the caller's to kill."""
        fd = os.open(self.outer, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, FS_IOC_SHUTDOWN, SHUTDOWN_NO_LOG_FLUSH)
        finally:
            os.close(fd)

    def power_on(self):
        """After power_cut and the death of the processes."""
        self.unmount()
        self.mount_outer()
        self.mount_inner()

    def unmount(self):
        for path in (self.path, self.outer):
            until = time.monotonic() + COMMAND_S
            while subprocess.run(["umount", path],
                                 stderr=subprocess.DEVNULL).returncode != 0:
                if time.monotonic() > until:
                    raise Impossible("cannot unmount " + path)
                time.sleep(0.02)

    def sync(self):
        """All that was written is safe (the control run begins from there)."""
        command("sync", "-f", self.path)
        command("sync", "-f", self.outer)

    def fill(self, leave=0):
        """Uses up all room."""
        room = os.statvfs(self.path)
        n = room.f_bavail * room.f_frsize - leave
        ballast = os.path.join(self.path, "ballast")
        with open(ballast, "wb") as f:
            step = n
            while step >= 4096:
                try:
                    os.posix_fallocate(f.fileno(), f.seek(0, 2), step)
                    f.truncate(f.seek(0, 2))
                except OSError:
                    step //= 2

    def unfill(self):
        ballast = os.path.join(self.path, "ballast")
        if os.path.exists(ballast):
            os.unlink(ballast)
            fd = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(fd)  # or the next power loss brings it back
            finally:
                os.close(fd)

    def free(self):
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize

    def probe(self):
        """A written and not synced file goes with the power, a synced one
        stays; the same for direct writes over what a file has."""
        direct = os.path.join(self.path, "probe-direct")
        synced = os.path.join(self.path, "probe-synced")
        put(direct, b"a", os.O_CREAT)
        put(synced, b"a", os.O_CREAT)
        self.sync()
        put(synced, b"b", os.O_DIRECT | os.O_DSYNC)
        put(direct, b"b", os.O_DIRECT)
        self.power_cut()
        self.power_on()
        with open(direct, "rb") as f:
            lost = f.read(1) == b"a"
        with open(synced, "rb") as f:
            kept = f.read(1) == b"b"
        os.unlink(direct)
        os.unlink(synced)
        if not lost or not kept:
            raise Impossible("power loss: an un-synced direct write %s, a "
                             "synced one %s" % ("is lost" if lost else "stays",
                                                "stays" if kept else "is lost"))


def put(path, byte, flags):
    import mmap
    fd = os.open(path, os.O_WRONLY | flags, 0o644)
    page = mmap.mmap(-1, 4096)
    page.write(byte * 4096)
    try:
        os.pwrite(fd, page, 0)
    finally:
        os.close(fd)


def make_image(path, size_mib):
    with open(path, "wb") as f:
        f.truncate(size_mib * MIB)
    command("mkfs.ext4", "-q", "-m", "0", "-E",
            "lazy_itable_init=0,lazy_journal_init=0,nodiscard", path)


def flip_bits(path, rng):
    """About two bits of a file, anywhere; gives how many."""
    size = os.path.getsize(path)
    n = 0
    with open(path, "r+b") as f:
        for _ in range(2 if size else 0):
            at = rng.randrange(size)
            f.seek(at)
            old = f.read(1)[0]
            f.seek(at)
            f.write(bytes([old ^ (1 << rng.randrange(8))]))
            n += 1
    return n


def copy_sparse(source, target):
    shutil.copytree(source, target, symlinks=True,
                    ignore=shutil.ignore_patterns("lost+found", "ballast"))


def random_of(seed):
    return random.Random(seed)
