"""What the conformance suites and the kill test share: a cluster of real
processes, child commands with time-outs, checks that are counted."""
import ctypes
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback

from kept import judge

# A shell that starts us in the background has it ignored, and so would have all
# whom we start, and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))


class Failed(Exception):
    """A check did not hold; the text says what was seen."""


def expect(condition, text):
    if not condition:
        raise Failed(text)


def run(args, timeout=60, status=0, stdin=None, env=None):
    """Runs a command and gives its stdout as bytes; fails on another exit
    status (None: any)."""
    try:
        done = subprocess.run(args, input=stdin, timeout=timeout, env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except subprocess.TimeoutExpired as e:
        raise Failed("%s: no end after %d s; stderr: %s" % (
            command_name(args), timeout, tail(e.stderr)))
    if status is not None and done.returncode != status:
        raise Failed("%s: status %d; stderr: %s" % (
            command_name(args), done.returncode, tail(done.stderr)))
    return done.stdout


def until(condition, text, seconds=60, pause=0.1):
    """Waits until the condition holds; its last value. `text()` says what was
    there instead when the time is over."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        expect(time.monotonic() < end, text())
        time.sleep(pause)


def command_name(args):
    return " ".join(str(a) for a in args)[:300]


def tail(data, n=600):
    text = (data or b"").decode("utf-8", "replace").strip()
    return text[-n:]


class Suite:
    """Counts of one suite. Expected are failures that a kept list has; n/a
    is what does not apply, case by case with the reason; second is what passed
    only then, with what was said at first."""

    def __init__(self, name):
        self.name = name
        self.passed = self.failed = 0
        self.seconds = 0.0
        self.expected, self.not_applicable = [], []  # (case, reason)
        self.second = []


class Report:
    """Counts checks, suite by suite, and prints them as they end."""

    def __init__(self):
        self.suites = []
        self.lock = threading.Lock()

    def suite(self, name):
        self.suites.append(Suite(name))
        return self.suites[-1]

    def check(self, name, function, *args):
        suite = self.suites[-1]
        begun = time.monotonic()
        try:
            note = function(*args)
            error = None
        except Failed as e:
            error = str(e)
        except Exception:  # a bug of the test counts as a failure
            error = traceback.format_exc()
        seconds = time.monotonic() - begun
        self._count(suite, name, "failed" if error else "passed",
                    error or note, seconds)
        return error is None

    def outcome(self, suite, kept, case, outcome, note="", seconds=0.0):
        """Counts what a foreign suite told of a case ("pass", "fail", "skip")
        by the kept list."""
        word, text = judge(kept, case, outcome, note)
        self._count(suite, case, word, text, seconds)
        return word != "failed"

    def second_try(self, suite, case, note):
        """A case missed a limit of time of its own and will run again."""
        first = next((line for line in note.split("\n") if line.strip()), "")
        with self.lock:
            suite.second.append((case, first.strip()[:200]))
            print("again %s: %s: %s" % (suite.name, case, first), flush=True)

    def _count(self, suite, name, word, text, seconds):
        with self.lock:
            suite.seconds += seconds
            if word == "passed":
                suite.passed += 1
            elif word == "failed":
                suite.failed += 1
            elif word == "expected":
                suite.expected.append((name, text))
            else:
                suite.not_applicable.append((name, text))
            label = {"passed": "ok  ", "failed": "FAIL", "n/a": "n/a ",
                     "expected": "fail, as expected"}[word]
            line = "%s %s: %s (%.1f s)" % (label, suite.name, name, seconds)
            if word != "failed" and text:
                line += ": %s" % text
            print(line, flush=True)
            if word == "failed":
                print("     " + (text or "").replace("\n", "\n     "),
                      flush=True)

    def result(self, suite, name, ok, note=""):
        """Counts a check that was made elsewhere."""
        def told():
            expect(ok, note)
            return note
        if not self.suites or self.suites[-1].name != suite:
            self.suite(suite)
        self.check(name, told)

    def failed(self):
        return sum(s.failed for s in self.suites)

    def finish(self):
        """Prints the table, what does not apply and what failed as expected,
        each with its reason, and the closing line; gives the exit status."""
        for head, key in (("NOT APPLICABLE", "not_applicable"),
                          ("FAILED, AS EXPECTED", "expected"),
                          ("LATE, AND RUN A SECOND TIME", "second")):
            self._reasons(head, key)
        print()
        row = "%-32s %7s %7s %9s %5s %8s"
        print(row % ("SUITE", "PASSED", "FAILED", "EXPECTED", "N/A",
                     "SECONDS"))
        for s in self.suites:
            print(row % (s.name, s.passed, s.failed, len(s.expected),
                         len(s.not_applicable), "%.1f" % s.seconds))
        passed = sum(s.passed for s in self.suites)
        failed = self.failed()
        print("%d passed, %d failed" % (passed, failed), flush=True)
        return 1 if failed or not passed else 0

    def _reasons(self, head, key):
        reasons = {}
        for s in self.suites:
            for case, reason in getattr(s, key):
                reasons.setdefault((s.name, reason), []).append(case)
        if not reasons:
            return
        print("\n%s" % head)
        for (suite, reason), cases in reasons.items():
            print("%s: %s\n    %s" % (suite, reason, "\n    ".join(
                textwrap.wrap(", ".join(cases), 74))))


def die_with_parent():
    """In a child, before it runs: it ends when the test does, however."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Lines:
    """Lines of a pipe, read by a thread so that waiting has a limit."""

    def __init__(self, pipe):
        self.queue = queue.Queue()
        threading.Thread(target=self._pump, args=(pipe,), daemon=True).start()

    def _pump(self, pipe):
        for line in pipe:
            self.queue.put(line.decode("utf-8", "replace").rstrip("\n"))
        self.queue.put(None)

    def next(self, timeout):
        try:
            return self.queue.get(timeout=timeout)
        except queue.Empty:
            return None


def free_ports(first, n):
    """The first of n ports in a row that nobody listens on: `first`, or one a
    little above where another run has that."""
    for port in range(first, first + 2000, 20):
        try:
            for p in range(port, port + n):
                with socket.socket() as s:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind(("127.0.0.1", p))
            return port
        except OSError:
            pass
    raise Failed("no %d free ports in a row above %d" % (n, first))


class Cluster:
    """`flotilla dev` and its brokers; broker N listens on port + N - 1."""

    def __init__(self, build, n=3, port=29092, defines=(), data=None):
        self.binary = os.path.join(ROOT, build, "flotilla")
        self.tool = self.binary  # what asks the brokers
        self.n = n
        if data and os.path.exists(os.path.join(data, "broker-1")):
            self.port = port  # brokers keep their addresses
        else:
            self.port = free_ports(port, 2 * n)
        self.defines = list(defines)
        self.keep = data is not None
        self.data = data or tempfile.mkdtemp(prefix="flotilla-test-")
        self.dev = None
        self.started_by_hand = {}

    @property
    def bootstrap(self):
        return ",".join("127.0.0.1:%d" % (self.port + i)
                        for i in range(self.n))

    def start(self, timeout=60):
        args = [self.binary, "dev", "-n", str(self.n), "--port",
                str(self.port), "--data", self.data]
        for d in self.defines:
            args += ["-D", d]
        begun = time.monotonic()
        self.dev = subprocess.Popen(args, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE,
                                    start_new_session=True,
                                    preexec_fn=die_with_parent)
        self.err = Lines(self.dev.stderr)
        line = Lines(self.dev.stdout).next(timeout)
        if line is None or not line.startswith("ready: "):
            self.stop()
            raise Failed("`flotilla dev` is not ready: %r\n%s" % (
                line, self.logs()))
        self.start_seconds = time.monotonic() - begun
        return line[len("ready: "):]

    def logs(self, n=1500):
        text = ""
        line = self.err.next(0.2)
        while line is not None:
            text += "dev: %s\n" % line
            line = self.err.next(0.2)
        for i in range(1, self.n + 1):
            try:
                with open(self.path(i, "broker.log"), "rb") as f:
                    text += "broker %d: …%s\n" % (i, tail(f.read(), n))
            except OSError:
                pass
        return text

    def path(self, node, name):
        return os.path.join(self.data, "broker-%d" % node, name)

    def pid(self, node):
        try:
            with open(self.path(node, "pid")) as f:
                pid = int(f.read().strip() or 0)
            os.kill(pid, 0)
            return pid
        except (OSError, ValueError):
            return 0

    def kill(self, node, signo=signal.SIGKILL):
        pid = self.pid(node)
        expect(pid > 0, "broker %d has no process" % node)
        os.kill(pid, signo)
        return pid

    def wait_dead(self, node, pid, timeout=40):
        """Until the process is gone (a zombie of dev's counts as gone)."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            by_hand = self.started_by_hand.get(node)
            if by_hand is not None and by_hand.pid == pid:
                if by_hand.poll() is not None:
                    return
            else:
                try:
                    with open("/proc/%d/stat" % pid) as f:
                        if f.read().rsplit(")", 1)[1].split()[0] == "Z":
                            return
                except OSError:
                    return
            time.sleep(0.01)
        raise Failed("broker %d (process %d) did not end in %d s" % (
            node, pid, timeout))

    def restart(self, node):
        """`flotilla server` on what dev wrote, as a user would."""
        log = open(self.path(node, "broker.log"), "ab")
        self.started_by_hand[node] = subprocess.Popen(
            [self.binary, "server", "--config",
             self.path(node, "server.properties")],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, preexec_fn=die_with_parent)
        log.close()

    def wait_all(self, timeout=60):
        """Until every broker tells of n brokers and a controller."""
        end = time.monotonic() + timeout
        seen = None
        while time.monotonic() < end:
            seen = [self._status(i) for i in range(self.n)]
            if all(s == (self.n, True) for s in seen):
                return
            time.sleep(0.1)
        raise Failed("brokers do not know each other after %d s: %r\n%s" % (
            timeout, seen, self.logs()))

    def _status(self, i):
        try:
            import json
            out = subprocess.run(
                [self.tool, "cluster", "status", "-o", "json", "--wait",
                 "2", "-b", "127.0.0.1:%d" % (self.port + i)],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                timeout=10).stdout
            status = json.loads(out)
            return len(status["brokers"]), status["controller"] >= 0
        except (ValueError, KeyError, subprocess.TimeoutExpired):
            return None

    def stop(self):
        processes = list(self.started_by_hand.values())
        if self.dev is not None:
            processes.append(self.dev)
        for p in processes:
            if p.poll() is None:
                p.terminate()
        status = None
        for p in processes:
            try:
                p.wait(40)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        if self.dev is not None:
            status = self.dev.returncode
        return status

    def remove(self):
        if not self.keep:
            shutil.rmtree(self.data, ignore_errors=True)


class External:
    """Another cluster that is running already (a comparison)."""

    def __init__(self, bootstrap, n):
        self.bootstrap = bootstrap
        self.n = n
        self.start_seconds = 0.0

    def stop(self):
        return 0

    def remove(self):
        pass

    def logs(self):
        return ""


def text_lines(path, count):
    """Makes a file of `count` numbered real lines from what every Debian
    machine has: licences, C headers and Python sources, in a fixed order."""
    if os.path.exists(path):
        return
    number = 0
    with open(path + ".new", "wb") as out:
        while number < count:
            begun_with = number
            for folder in ("/usr/share/common-licenses", "/usr/include",
                           "/usr/lib/python3", "/usr/lib/python3.11",
                           "/usr/share/perl"):
                number = _add_folder(out, folder, number, count)
            expect(number > begun_with, "no text on this machine")
    os.rename(path + ".new", path)


def _add_folder(out, folder, number, count):
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".pyc", ".so", ".gz")) or number >= count:
                continue
            try:
                with open(os.path.join(where, name), "rb") as f:
                    data = f.read()
            except OSError:
                continue
            for line in data.splitlines():
                if line.strip() and b"\0" not in line and number < count:
                    out.write(b"%07d %s\n" % (number, line[:2000]))
                    number += 1
    return number


def venv_python(build, packages):
    """A Python with these packages, made once."""
    folder = os.path.join(ROOT, build, "venv")
    python = os.path.join(folder, "bin", "python")
    stamp = os.path.join(folder, ".has-" + re.sub(r"\W+", "-",
                                                   "-".join(packages)))
    if not os.path.exists(stamp):
        run([sys.executable, "-m", "venv", folder], timeout=120)
        run([python, "-m", "pip", "-q", "install", "--no-input",
             "--disable-pip-version-check"] + packages, timeout=300)
        open(stamp, "w").close()
    return python
