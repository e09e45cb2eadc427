"""The faults. Each begins, lasts, and ends; what it does is told in a line.
Faults that touch the same thing are not injected at the same time; who was
ended by one is started when all are over."""
import itertools
import os
import random
import signal
import subprocess
import threading
import time

from cluster import faketime_library
from world import CLIENTS, Impossible, address, command, flip_bits

CALLS = "pwritev2,fdatasync,fsync,syncfs"  # by which the broker syncs
READY_S = 15  # others may be in force that keep a broker from it


class Nemesis:
    touches = {"process"}

    def __init__(self, cluster, network, rng):
        self.cluster, self.network, self.rng = cluster, network, rng
        self.brokers = cluster.brokers

    def probe(self):
        """Raises Impossible where this machine cannot do it."""

    def some(self, kinds=("one", "one", "minority", "majority", "all")):
        """(what they are called, brokers)"""
        kind = self.rng.choice(kinds)
        n = len(self.brokers)
        count = {"one": 1, "minority": (n - 1) // 2, "majority": n // 2 + 1,
                 "all": n}[kind]
        some = self.rng.sample(self.brokers, count)
        return kind, sorted(some, key=lambda b: b.number)

    def sleep(self, low, high):
        time.sleep(self.rng.uniform(low, high))


def names(brokers):
    return " ".join(str(b.number) for b in brokers)


def at_once(brokers, do):
    """For all brokers at the same time; raises what failed first."""
    failed = []

    def one(b):
        try:
            do(b)
        except Exception as e:
            failed.append(e)
    threads = [threading.Thread(target=one, args=(b,)) for b in brokers]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]


class Kill(Nemesis):
    """kill -9"""
    name = "kill"

    def begin(self):
        kind, self.hit = self.some()
        at_once(self.hit, lambda b: b.kill())
        return "%s: %s" % (kind, names(self.hit))

    def end(self):
        for b in self.hit:
            b.start(wait=False)


class Pause(Nemesis):
    """SIGSTOP, as long as the fault lasts"""
    name = "pause"

    def begin(self):
        kind, self.hit = self.some()
        for b in self.hit:
            self.cluster.mark(b.number, "paused", True)
            signal_to(b, signal.SIGSTOP)
        return "%s: %s" % (kind, names(self.hit))

    def end(self):
        for b in self.hit:
            signal_to(b, signal.SIGCONT)
            self.cluster.mark(b.number, "paused", False)


def signal_to(broker, number):
    if broker.alive():
        broker.process.send_signal(number)


class Rolling(Nemesis):
    """SIGTERM and start, one broker after the other"""
    name = "rolling"

    def begin(self):
        for b in self.brokers:
            if b.alive():
                b.end(signal.SIGTERM)
            b.start(wait=False)
            b.wait_ready(READY_S)
            self.sleep(0.5, 1.5)
        return "all, one by one"

    def end(self):
        pass


# ---- networks

def clique(n, pairs):
    """The largest set of brokers that reach each other both ways."""
    for size in range(n, 0, -1):
        for some in itertools.combinations(range(1, n + 1), size):
            if all((address(a), address(b)) not in pairs
                   for a in some for b in some):
                return set(some)
    return set()


class Cutting(Nemesis):
    touches = {"network"}

    def probe(self):
        self.network.probe_cuts()

    def begin(self):
        what, pairs = self.choose(len(self.brokers))
        self.network.cut(self.name, pairs)
        inside = clique(len(self.brokers), pairs)
        for b in self.brokers:
            a = address(b.number)
            alone = (a, CLIENTS) in pairs or (CLIENTS, a) in pairs
            self.cluster.mark(b.number, self.name,
                              b.number not in inside or alone)
        return what

    def end(self):
        self.network.heal(self.name)
        for b in self.brokers:
            self.cluster.mark(b.number, self.name, False)


def between(xs, ys):
    return {(address(x), address(y)) for x in xs for y in ys} | \
           {(address(y), address(x)) for x in xs for y in ys}


class Partition(Cutting):
    """brokers cut off from each other: one alone, two parts, a ring in which
    each sees a different majority, two parts joined by one broker"""
    name = "partition"

    def choose(self, n):
        order = list(range(1, n + 1))
        self.rng.shuffle(order)
        kind = self.rng.choice(["isolate", "halves", "ring", "bridge"])
        if kind == "isolate":
            pairs = between(order[:1], order[1:])
        elif kind == "halves":
            pairs = between(order[:n // 2], order[n // 2:])
        elif kind == "bridge":
            middle = n // 2
            pairs = between(order[:middle], order[middle + 1:])
        else:  # each sees itself and its neighbours; of three: one link less
            pairs = between(order[:1], order[1:2]) if n < 5 else {
                p for i in range(n)
                for p in between([order[i]], [order[(i + 2) % n]])}
        return "%s: %s" % (kind, " ".join(map(str, order))), pairs


class OneWay(Cutting):
    """packets dropped in one direction only"""
    name = "one-way"

    def choose(self, n):
        order = list(range(1, n + 1))
        self.rng.shuffle(order)
        a, rest = order[0], order[1:]
        kind = self.rng.choice(["link", "deaf", "dumb", "wholly dumb"])
        if kind == "link":
            pairs = {(address(a), address(rest[0]))}
        elif kind == "deaf":
            pairs = {(address(b), address(a)) for b in rest}
        else:
            pairs = {(address(a), address(b)) for b in rest}
            if kind == "wholly dumb":
                pairs.add((address(a), CLIENTS))
        return "%s: %d" % (kind, a), pairs


class Clients(Cutting):
    """clients cut off from one broker"""
    name = "clients"

    def choose(self, n):
        a = address(self.rng.randrange(n) + 1)
        kind = self.rng.choice(["both ways", "towards it", "from it"])
        pairs = {(CLIENTS, a), (a, CLIENTS)}
        if kind == "towards it":
            pairs = {(CLIENTS, a)}
        elif kind == "from it":
            pairs = {(a, CLIENTS)}
        return "%s %s" % (a, kind), pairs

    def begin(self):
        """Brokers are all well, and cannot help clients that reach only
        others than the leader."""
        self.cluster.mark(0, self.name, True)
        return super().begin()

    def end(self):
        super().end()
        self.cluster.mark(0, self.name, False)


class Loss(Nemesis):
    """packets dropped at random"""
    name, touches = "loss", {"network"}

    def probe(self):
        self.network.probe_loss()

    def begin(self):
        percent = self.rng.choice([1, 5, 15, 30])
        everywhere = self.rng.random() < 0.5
        hit = self.rng.choice(self.brokers).number
        self.number = 0 if everywhere else hit
        drop = "numgen random mod 100 < %d drop" % percent
        rules = [drop] if everywhere else \
            ["ip saddr %s %s" % (address(hit), drop),
             "ip daddr %s %s" % (address(hit), drop)]
        self.cluster.mark(self.number, self.name, True)
        self.network.harm(self.name, *rules)
        return "%d %% %s" % (percent,
                             "everywhere" if everywhere else "at %d" % hit)

    def end(self):
        self.network.unharm(self.name)
        self.cluster.mark(self.number, self.name, False)


class Reset(Nemesis):
    """connections reset at random"""
    name, touches = "reset", {"network"}

    def probe(self):
        self.network.probe_resets()

    def begin(self):
        per_mille = self.rng.choice([1, 5, 20])
        _, self.hit = self.some(("one", "all"))
        for b in self.hit:
            self.network.resets(b.number, per_mille)
        self.mark(True)
        return "%d of 1000 packets, at %s" % (per_mille, names(self.hit))

    def mark(self, bad):
        if len(self.hit) > 1:
            self.cluster.mark(0, self.name, bad)
        else:
            self.cluster.mark(self.hit[0].number, self.name, bad)

    def end(self):
        for b in self.hit:
            self.network.resets(b.number, 0)
        self.mark(False)


class Clock(Nemesis):
    """wall clocks jump, once or to and fro"""
    name, touches = "clock", {"clock"}
    JUMPS = (-86400, -3600, -60, -2, 2, 60, 3600, 86400)
    # Who is so far behind refuses what clients write now, as Kafka does
    # (message.timestamp.after.max.ms): no majority can help.
    REFUSES = -3600

    def probe(self):
        env = dict(os.environ, LD_PRELOAD=faketime_library(),
                   FAKETIME="+86400", DONT_FAKE_MONOTONIC="1")
        there = float(subprocess.run(["date", "+%s"], env=env,
                                     stdout=subprocess.PIPE).stdout)
        if not 86000 < there - time.time() < 87000:
            raise Impossible("faketime does not change the time")

    def begin(self):
        kind, self.hit = self.some(("one", "minority", "all"))
        jump = self.rng.choice(self.JUMPS)
        strobe = self.rng.random() < 0.3
        self.refuses = jump <= self.REFUSES
        if self.refuses:
            self.cluster.mark(0, self.name, True)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(jump, strobe))
        self.thread.start()
        return "%s: %s by %+d s%s" % (kind, names(self.hit), jump,
                                      ", to and fro" if strobe else "")

    def run(self, jump, strobe):
        there = True
        while not self.stop.is_set():
            for b in self.hit:
                b.set_clock(jump if there else 0)
            if not strobe:
                break
            there = not there
            self.stop.wait(1.1)

    def end(self):
        self.stop.set()
        self.thread.join()
        for b in self.hit:
            b.set_clock(0)
        if self.refuses:
            self.cluster.mark(0, self.name, False)


# ---- disks

class Power(Nemesis):
    """power loss of one broker: what it had not synced is gone"""
    name, touches = "power", {"process", "disk"}

    def probe(self):
        self.brokers[0].disk.probe()

    def choose(self):
        return self.some(("one",))

    def begin(self):
        kind, self.hit = self.choose()
        for b in self.hit:
            b.expect_end()
            self.cluster.mark(b.number, "down", True)
        at_once(self.hit, lambda b: b.disk.power_cut())
        at_once(self.hit, lambda b: b.kill())
        return "%s: %s" % (kind, names(self.hit))

    def end(self):
        at_once(self.hit, lambda b: b.disk.power_on())
        for b in self.hit:
            b.start(wait=False)


class PowerAll(Power):
    """power loss of all brokers at once"""
    name = "power-all"

    def choose(self):
        return "all", self.brokers


class Steered(Power):
    """a minority is away while records are written; then one of the others
    loses its power, and comes back with the minority alone"""
    name = "steered"

    def begin(self):
        order = list(self.brokers)
        self.rng.shuffle(order)
        n = len(order)
        away = order[:(n - 1) // 2]
        victim, rest = order[len(away)], order[len(away) + 1:]
        self.pause(away, True)
        self.sleep(2.0, 4.0)
        self.hit = [victim]
        victim.expect_end()
        victim.disk.power_cut()
        victim.kill()
        self.pause(rest, True)
        self.pause(away, False)
        victim.disk.power_on()
        victim.start(wait=False)
        victim.wait_ready(READY_S)
        self.sleep(4.0, 6.0)
        self.pause(rest, False)
        return "away %s, power loss %d, then away %s" % (
            names(away), victim.number, names(rest))

    def pause(self, brokers, stop):
        for b in brokers:
            self.cluster.mark(b.number, "paused", stop)
            signal_to(b, signal.SIGSTOP if stop else signal.SIGCONT)

    def end(self):
        self.pause(self.brokers, False)


class Full(Nemesis):
    """no room on the disk"""
    name, touches = "full", {"disk"}

    def probe(self):
        disk = self.brokers[0].disk
        disk.fill()
        room = disk.free()
        disk.unfill()
        if room > 65536:
            raise Impossible("the disk cannot be filled: %d bytes left" % room)

    def begin(self):
        kind, self.hit = self.some(("one", "one", "minority", "all"))
        for b in self.hit:
            self.cluster.mark(b.number, self.name, True)
            b.excuse = "its disk is full"
            b.disk.fill()
        return "%s: %s" % (kind, names(self.hit))

    def end(self):
        for b in self.hit:
            b.disk.unfill()
            b.excuse = None
            self.cluster.mark(b.number, self.name, False)


class Strace(Nemesis):
    touches = {"process", "disk"}

    def probe(self):
        """strace can attach, and its injection is seen."""
        child = subprocess.Popen(["sleep", "0.5"])
        try:
            text = command("strace", "-f", "-e", "trace=fdatasync", "-e",
                           "inject=fdatasync:error=EIO", "sync", "-d",
                           "/proc/self/exe", check=False)
            attach = subprocess.run(["strace", "-p", str(child.pid)],
                                    stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, text=True,
                                    timeout=20).stdout
        except FileNotFoundError:
            raise Impossible("strace is not there")
        finally:
            child.kill()
            child.wait()
        if "INJECTED" not in text or "attached" not in attach:
            raise Impossible("strace cannot inject: " + (text + attach)[-200:])

    def attach(self, broker, inject):
        self.out = os.path.join(broker.home, "strace-%d" % broker.starts)
        self.tracer = subprocess.Popen(
            ["strace", "-f", "-qq", "-p", str(broker.process.pid), "-e",
             "trace=" + CALLS, "-e", "inject=%s:%s" % (CALLS, inject), "-o",
             self.out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def detach(self):
        self.tracer.send_signal(signal.SIGINT)
        try:
            self.tracer.wait(10)
        except subprocess.TimeoutExpired:
            self.tracer.kill()
            self.tracer.wait()
        injected = 0
        try:
            with open(self.out, errors="replace") as f:
                injected = sum("INJECTED" in line or "DELAYED" in line
                               for line in f)
            os.unlink(self.out)
        except OSError:
            pass
        return injected


class SyncError(Strace):
    """a sync fails once; the broker must end by itself, never try again"""
    name = "sync-error"

    def begin(self):
        self.hit = self.rng.choice(self.brokers)
        if not self.hit.alive():
            return "%d is down" % self.hit.number
        self.hit.excuse = "its sync failed"
        self.process = self.hit.process
        self.attach(self.hit, "error=%s:when=%d" % (
            self.rng.choice(["EIO", "EIO", "ENOSPC"]), self.rng.randint(1, 8)))
        return "%d" % self.hit.number

    def end(self):
        if self.hit.excuse is None:
            return
        until = time.monotonic() + 3
        while self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        with open(self.out, errors="replace") as f:
            seen = f.read()
        self.detach()
        if "EIO (Input/output error) (INJECTED)" in seen and \
                self.process.poll() is None:
            self.cluster.problem("broker %d runs on after a failed sync" %
                                 self.hit.number)
        elif "INJECTED" not in seen:
            self.cluster.remark("sync-error: broker %d synced nothing" %
                                self.hit.number)
        self.hit.excuse = None
        self.hit.start(wait=False)


class SyncSlow(Strace):
    """each sync of one broker takes long"""
    name = "sync-slow"

    def begin(self):
        self.hit = self.rng.choice(self.brokers)
        if not self.hit.alive():
            self.hit = None
            return "nobody"
        ms = self.rng.choice([20, 100, 500, 2000])
        self.cluster.mark(self.hit.number, self.name, True)
        self.attach(self.hit, "delay_enter=%d" % (ms * 1000))
        return "%d by %d ms" % (self.hit.number, ms)

    def end(self):
        if self.hit is not None:
            self.detach()
            self.cluster.mark(self.hit.number, self.name, False)


class Flip(Nemesis):
    """bits flipped in files of a minority of the replicas, the same brokers
    in a whole run, while they are down"""
    name, touches = "flip", {"process", "disk"}

    def __init__(self, *args):
        super().__init__(*args)
        self.victims = self.rng.sample(self.brokers,
                                       (self.cluster.replicas - 1) // 2)

    def begin(self):
        self.hit = self.rng.choice(self.victims)
        self.hit.kill()
        files = [os.path.join(where, f) for where, _, inside in
                 os.walk(os.path.join(self.hit.disk.path, "data"))
                 for f in sorted(inside) if f not in ("lock", "pid")]
        files.sort()
        some = self.rng.sample(files, min(len(files), 4))
        n = sum(flip_bits(f, self.rng) for f in some)
        return "%d: %d bits of %s" % (self.hit.number, n, " ".join(
            os.path.relpath(f, self.hit.disk.path) for f in some))

    def end(self):
        self.hit.start(wait=False)


KINDS = [Kill, Pause, Rolling, Partition, OneWay, Clients, Loss, Reset, Clock,
         Power, PowerAll, Steered, Full, SyncError, SyncSlow, Flip]


class Schedule(threading.Thread):
    """Injects faults until the end, from a shuffled deck so that each kind
    has its turn; now and then two that touch different things at once."""

    def __init__(self, nemeses, rng, until_ns, history, hold, calm):
        super().__init__(daemon=True)
        self.nemeses, self.rng = nemeses, rng
        self.until_ns, self.history = until_ns, history
        self.hold, self.calm = hold, calm
        self.counts = {n.name: 0 for n in nemeses}
        self.deck = []
        self.stopping = threading.Event()
        self.error = None

    def next(self):
        if not self.deck:
            self.deck = list(self.nemeses)
            self.rng.shuffle(self.deck)
        return self.deck.pop()

    def left(self):
        return (self.until_ns - time.monotonic_ns()) / 1e9

    def run(self):
        try:
            while self.left() > 0 and not self.stopping.is_set():
                self.stopping.wait(min(self.rng.uniform(*self.calm),
                                       max(self.left(), 0)))
                if self.left() > self.hold[0]:
                    self.inject()
        except Exception as e:  # told by the run, which fails
            import traceback
            self.error = traceback.format_exc()

    def inject(self):
        some = [self.next()]
        if len(self.nemeses) > 1 and self.rng.random() < 0.3:
            other = self.next()
            if not other.touches & some[0].touches:
                some.append(other)
            else:
                self.deck.append(other)
        begun = []
        try:
            for n in some:
                begun.append(n)
                self.history(n.name, "start", "")
                self.counts[n.name] += 1
                self.history(n.name, "start", n.begin())
            self.stopping.wait(self.rng.uniform(*self.hold))
        finally:
            for n in reversed(begun):
                self.history(n.name, "stop", "")
                n.end()
                self.history(n.name, "stop", "done")
        for number in self.nemeses[0].cluster.revive():
            self.nemeses[0].cluster.problem(
                "broker %d does not start again" % number)


def nemeses_of(text, cluster, network, seed):
    """By their names, or "all"."""
    kinds = {k.name: k for k in KINDS}
    chosen = []
    for name in text.split(","):
        if name == "all":
            chosen += KINDS
        elif name == "none":
            pass
        elif name in kinds:
            chosen.append(kinds[name])
        else:
            raise ValueError("unknown nemesis %s; there are: all, %s" % (
                name, ", ".join(kinds)))
    unique = [k for k in KINDS if k in chosen]
    return [k(cluster, network, random.Random("%d %s" % (seed, k.name)))
            for k in unique]
