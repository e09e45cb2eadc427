"""What the times without an acknowledgement are made of: for each partition of
`steady`, by its librdkafka producer and by the probe of our own client, which
notes what it was told."""
import collections
import re

KEY_STEADY = 1000000
STRIDE = 100000     # of process numbers: a thread's next process
PROBE = 80000       # the probe's first process
TOLD_S = 2.0        # gaps from here on are told one by one
TOLD_MAX = 20
BEFORE_S = 3.0      # a fault that ended so shortly before may be the cause
ACK = re.compile(r"\[:send (\d+) \[")
SEND = re.compile(r"\[:send (\d+) ")
HEAD = re.compile(r"\{:index \d+, :time (\d+), :type :(\w+), :process (\S+), "
                  r":f :([\w-]+), :value (.*)")
ERROR = re.compile(r':error \[:\w+ "([^"]*)"\]')
LEADER = re.compile(r":leader (-?\d+)")
# What the probe is told, and what it means for who waits.
MEANS = {
    "ok": "an acknowledgement, late",
    "no answer": "a leader that does not answer",
    "REQUEST_TIMED_OUT": "a leader without its followers",
    "no metadata": "a broker that does not answer",
    "no connection": "a broker that is not there",
    "no leader": "an election",
    "NOT_LEADER_OR_FOLLOWER": "word of an election",
}
NAMES = {"machine": "machine-stood-still"}
CLIENTS = ("any client", "librdkafka", "own client")


class History:
    def __init__(self, path):
        # client -> key -> times; key -> [(time, what the probe was told)]
        self.acks = {c: collections.defaultdict(list) for c in CLIENTS}
        self.told = collections.defaultdict(list)
        self.faults = []  # (from, to, text)
        self.opened = {}
        with open(path) as f:
            for line in f:
                if ":f :send" in line:
                    if ":type :invoke" not in line:
                        self.send(line)
                elif ":process :nemesis" in line:
                    self.nemesis(line)

    def send(self, line):
        m = HEAD.match(line)
        keys = SEND.search(line)
        if m is None or keys is None or int(keys.group(1)) < KEY_STEADY:
            return
        t, key = int(m.group(1)) / 1e9, int(keys.group(1))
        ours = int(m.group(3)) % STRIDE >= PROBE
        if ours:
            error = ERROR.search(line)
            leader = LEADER.search(line)
            self.told[key].append((t, error.group(1) if error else "ok",
                                   leader.group(1) if leader else None))
        if m.group(2) in ("ok", "info") and ACK.search(line):
            self.acks["any client"][key].append(t)
            self.acks["own client" if ours else "librdkafka"][key].append(t)

    def nemesis(self, line):
        m = HEAD.match(line)
        if m is None:
            return
        t, f, text = int(m.group(1)) / 1e9, m.group(4), m.group(5)
        what, _, name = f.partition("-")
        text = text.strip('"}\n')
        if what == "start" and name not in self.opened:
            self.opened[name] = [t, NAMES.get(name, name)]
        elif what == "start" and text:
            self.opened[name][1] = (name + " " + text).strip()
        elif text == "done" and name in self.opened:
            begun, said = self.opened.pop(name)
            self.faults.append((begun, t, said))

    def around(self, a, b):
        """The faults that may have to do with a gap."""
        return [text[:60] for begun, end, text in self.faults
                if begun < b and end > a - BEFORE_S]


def gaps_of(times, windows):
    """(length, from, to) of each time without one, in each window."""
    for begun, end in windows:
        last = begun
        for t in times:
            if t <= begun:
                continue
            if t >= end:
                break
            yield t - last, last, t
            last = t
        yield end - last, last, end


def windows_read(path):
    with open(path) as f:
        return [tuple(int(n) / 1e9 for n in line.split()) for line in f]


def kinds(faults):
    return ", ".join(sorted({f.split()[0] for f in faults})) or "none"


def seconds_of(history, key, a, b):
    """What the probe waited for in that time: seconds by what it was told at
    last. It does one thing after the other."""
    some = collections.Counter()
    last = a
    for t, what, _ in history.told[key]:
        if t > a and last < b:
            some[MEANS.get(what, what)] += min(t, b) - last
            last = min(t, b)
    some["the end"] += b - last
    return collections.Counter({w: s for w, s in some.items() if s >= 0.05})


def seconds_text(some):
    return ", ".join("%s %.1f s" % item for item in some.most_common(5))


def gap_line(history, key, gap):
    length, a, b = gap
    leaders = [who for t, _, who in history.told[key]
               if a - 1 <= t <= b + 2 and who is not None]
    moves = [who for i, who in enumerate(leaders)
             if i == 0 or leaders[i - 1] != who]
    return "    %5.2f s at %.1f s, key %d; faults: %s; %s; leaders: %s\n" \
        % (length, a, key, "; ".join(history.around(a, b)) or "none",
           seconds_text(seconds_of(history, key, a, b)),
           " ".join(moves) or "?")


def told(history_path, windows_path):
    """Text for the report. `windows_path` has lines "FROM TO" in ns."""
    history, windows = History(history_path), windows_read(windows_path)
    longest = {}
    long_ones = []
    by_kind = collections.defaultdict(lambda: [0, 0.0, collections.Counter()])
    for client in CLIENTS:
        longest[client] = 0.0
        for key, times in sorted(history.acks[client].items()):
            for gap in gaps_of(times, windows):
                longest[client] = max(longest[client], gap[0])
                if client == "any client" and gap[0] >= 1:
                    some = by_kind[kinds(history.around(gap[1], gap[2]))]
                    some[0] += 1
                    some[1] = max(some[1], gap[0])
                    some[2].update(seconds_of(history, key, gap[1], gap[2]))
                if client == "any client" and gap[0] >= TOLD_S:
                    long_ones.append((gap, key))
    text = "longest time without an acknowledgement while a majority lives: " + \
        ", ".join("%s %.2f s" % (c, longest[c]) for c in CLIENTS) + "\n"
    if by_kind:
        text += "  gaps of 1 s and more, by the faults around them, and what " \
            "the probe waited for:\n"
    for kind, (n, most, some) in sorted(by_kind.items(),
                                        key=lambda i: -i[1][1]):
        text += "    %-32s %4d, longest %.2f s: %s\n" % (
            kind, n, most, seconds_text(some))
    long_ones.sort(reverse=True)
    if long_ones:
        text += "  the longest:\n"
    for gap, key in long_ones[:TOLD_MAX]:
        text += gap_line(history, key, gap)
    return text


if __name__ == "__main__":
    import sys
    print(told(*sys.argv[1:3]), end="")
