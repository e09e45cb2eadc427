#!/usr/bin/env python3
"""The checks of this folder, given wrong answers: each must notice.
The last line is "N passed, M failed"."""
import os
import sys
import tempfile
import types

import kill_test
import suite_kcat
import suite_wire
from harness import Failed, Report, expect
from kept import Kept, judge

LINES = [b"%07d line %d" % (i, i) for i in range(6)]
GOOD = b"".join(b"%d %d %s\n" % (i % 2, i // 2, LINES[i]) for i in range(6))


def noticed(function, *args):
    try:
        function(*args)
    except Failed:
        return
    raise Failed("went unnoticed")


def fine(function, *args):
    function(*args)


def round_trips(report):
    report.suite("round trip")
    with tempfile.NamedTemporaryFile() as f:
        f.write(b"\n".join(LINES) + b"\n")
        f.flush()

        def verify(out):
            suite_kcat.verify(out, f.name, 6)
        rows = GOOD.splitlines(True)
        report.check("all is well", fine, verify, GOOD)
        report.check("a line lost at the end", noticed, verify,
                     b"".join(rows[:-1]))
        report.check("a line lost within", noticed, verify,
                     b"".join(rows[:2] + rows[3:]))
        report.check("a line twice", noticed, verify,
                     GOOD + b"0 3 " + LINES[5] + b"\n")
        report.check("a line in place of another", noticed, verify,
                     GOOD.replace(LINES[4], LINES[2]))
        report.check("another order", noticed, verify,
                     GOOD.replace(b"0 0 " + LINES[0], b"0 0 " + LINES[2])
                     .replace(b"0 1 " + LINES[2], b"0 1 " + LINES[0]))
        report.check("a changed byte", noticed, verify,
                     GOOD.replace(b"line 3", b"lime 3"))
        report.check("a gap between offsets", noticed, verify,
                     GOOD.replace(b"1 2 ", b"1 3 "))


def killing():
    """A kill test that has run: producer 0 got 1:.. acknowledged, and so on."""
    t = object.__new__(kill_test.KillTest)
    t.producers = []
    for number in range(2):
        acks = [(i * 0.1, i % kill_test.PARTITIONS,
                 2 * (i // kill_test.PARTITIONS) + number, i)
                for i in range(48)]
        t.producers.append(types.SimpleNamespace(number=number, acks=acks))
    t.log = {p: {} for p in range(kill_test.PARTITIONS)}
    for p in t.producers:
        for _, partition, offset, sequence in p.acks:
            t.log[partition][offset] = b"%d:%d" % (p.number, sequence)
    return t


def kills(report):
    report.suite("kill test")
    t = killing()
    report.check("all is well", lambda: (t.acked_is_there(),
                                         t.once_and_in_order()) and None)
    t = killing()
    t.log[3][1] = b"1:99"
    report.check("another record at an acknowledged offset", noticed,
                 t.acked_is_there)
    t = killing()
    del t.log[5][7]
    report.check("an acknowledged record lost", noticed, t.acked_is_there)
    t = killing()
    t.log[2][8] = t.log[2][7]
    report.check("a record twice in a partition", noticed, t.once_and_in_order)
    t = killing()
    t.log[2][8] = t.log[3][0]
    report.check("a record in two partitions", noticed, t.once_and_in_order)
    t = killing()
    t.log[2][0], t.log[2][2] = t.log[2][2], t.log[2][0]
    report.check("two records in the other order", noticed,
                 t.once_and_in_order)
    t = killing()
    report.check("the longest gap", lambda: expect(
        abs(t.gap(0.0, 4.8)[0] - 1.2) < 0.01, repr(t.gap(0.0, 4.8))))
    report.check("a gap that has not ended", lambda: expect(
        t.gap(4.8, 10.0)[0] > 5, repr(t.gap(4.8, 10.0))))


def checksums(report):
    report.suite("bytes")
    report.check("CRC-32C", lambda: expect(
        suite_wire.crc32c(b"123456789") == 0xe3069283, "CRC"))


def kept_lists(report):
    """An unexpected pass or failure fails; a list that nobody meets is told."""
    report.suite("kept lists")
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "a.txt"), "w") as f:
            f.write("# comment\nx fails no reason\ny fails:two_words two\n"
                    "z* skips not here\nnever fails gone\n"
                    "* again:too_late a limit of its own\n")
        with open(os.path.join(folder, "b.txt"), "w") as f:
            f.write("* may-fail:lost connections\n")
        one, both = Kept("a", folder=folder), Kept("a", "b", folder=folder)
    for kept, case, outcome, note, word in (
            (one, "x", "fail", "", "expected"),
            (one, "x", "pass", "", "failed"),
            (one, "x", "skip", "", "failed"),
            (one, "y", "fail", "it is two words", "expected"),
            (one, "y", "fail", "it is another", "failed"),
            (one, "zz", "skip", "", "n/a"),
            (one, "zz", "fail", "", "failed"),
            (one, "zz", "pass", "", "failed"),
            (one, "w", "pass", "", "passed"),
            (one, "w", "fail", "", "failed"),
            (one, "w", "skip", "", "failed"),
            (both, "w", "fail", "lost", "expected"),
            (both, "w", "fail", "wrong", "failed"),
            (both, "w", "pass", "", "passed"),
            (both, "y", "fail", "it is two words", "expected"),
            (both, "y", "fail", "lost", "expected"),
            (both, "y", "fail", "wrong", "failed"),
            (both, "zz", "skip", "", "n/a")):
        report.check("%s %s %r: %s" % (case, outcome, note, word),
                     lambda: expect(judge(kept, case, outcome, note)[0] ==
                                    word, judge(kept, case, outcome, note)))
    for case, outcome, note, again in (
            ("w", "fail", "1 s too late", True),
            ("w", "fail", "wrong", False),
            ("w", "pass", "too late", False),
            ("x", "fail", "too late", False),
            ("y", "fail", "too late", True)):
        report.check("%s %s %r: %s" % (case, outcome, note,
                                       "again" if again else "at once"),
                     lambda: expect(one.again(case, outcome, note) == again,
                                    "not so"))
    report.check("late is not excused", lambda: expect(
        judge(one, "w", "fail", "too late")[0] == "failed", "excused"))
    report.check("a line that no case met", lambda: expect(
        one.unmet() == ["never"], repr(one.unmet())))


def main():
    report = Report()
    kept_lists(report)
    round_trips(report)
    kills(report)
    checksums(report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
