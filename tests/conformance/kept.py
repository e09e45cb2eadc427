"""Kept lists: what of a foreign suite is expected not to pass, and why.

A list is a text file, expected/NAME.txt: one case a line,

    CASE  VERDICT  REASON

CASE may hold `*`. VERDICT is `fails` (it runs and fails; should it pass, the
run fails, so that the list stays true), `skips` (it does not apply: it is not
run, or skips itself) or `may-fail` (it depends on the moment: where brokers are
killed under a suite, or a race inside a client decides). `fails:TEXT` wants
TEXT, `_` for a blank, in what the suite says of the failure.

`again:TEXT` is no verdict: a failure that says TEXT tells that a limit of time
which the suite sets itself was missed, and so of the machine as much as of us.
The case runs once more, alone, and must pass then; the report lists it. Any
other failure counts at once. `#` begins a comment."""
import fnmatch
import os

HERE = os.path.dirname(os.path.abspath(__file__))
VERDICTS = ("fails", "skips", "may-fail", "again")


def says(verdict, note):
    """Whether a failure's text has what is behind the verdict's colon."""
    text = verdict.partition(":")[2]
    return text.replace("_", " ") in note.replace("_", " ")


class Kept:
    def __init__(self, *names, folder=None):
        self.entries = []  # [pattern, verdict, reason, met]
        for name in names:
            path = os.path.join(folder or os.path.join(HERE, "expected"),
                                name + ".txt")
            if os.path.exists(path):
                self._read(path)

    def _read(self, path):
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                words = line.split(None, 2)
                if not words or words[0].startswith("#"):
                    continue
                if (len(words) < 3 or
                        words[1].partition(":")[0] not in VERDICTS):
                    raise ValueError("%s:%d: not CASE VERDICT REASON" % (
                        path, number))
                self.entries.append([words[0], words[1], words[2].strip(),
                                     False])

    def find(self, case, failure=None):
        """(verdict, reason) of a case; (None, "") of one that must pass. What
        does not apply never does; else the last line that names it counts, of
        those with another TEXT the last one that the failure says."""
        found = [e for e in self.entries if fnmatch.fnmatchcase(case, e[0])
                 and not e[1].startswith("again")]
        for entry in found:
            entry[3] = True
        found.reverse()
        for entry in ([e for e in found if e[1] == "skips"] +
                      [e for e in found if failure is not None and
                       says(e[1], failure)] + found):
            return entry[1], entry[2]
        return None, ""

    def again(self, case, outcome, note):
        """Whether a case that no line excuses is to be run once more."""
        return judge(self, case, outcome, note)[0] == "failed" and \
            outcome == "fail" and any(
                fnmatch.fnmatchcase(case, e[0]) and says(e[1], note)
                for e in self.entries if e[1].startswith("again"))

    def unmet(self):
        """Lines that named no case: they should go."""
        return [e[0] for e in self.entries
                if not e[3] and not e[1].startswith("again")]


def judge(kept, case, outcome, note):
    """What an outcome ("pass", "fail", "skip") counts as: ("passed" | "failed"
    | "expected" | "n/a", text)."""
    verdict, reason = kept.find(case, note if outcome == "fail" else None)
    if outcome == "pass":
        if verdict is None or verdict.startswith("may-fail"):
            return "passed", note
        return "failed", ("passes, though the kept list has: %s %s" % (
            verdict, reason))
    if outcome == "skip":
        if verdict == "skips":
            return "n/a", reason
        return "failed", "skipped, for no reason kept: %s" % note
    if verdict and verdict != "skips":
        if says(verdict, note):
            return "expected", reason
        return "failed", "not as kept (%s): %s" % (verdict, note)
    if verdict == "skips":
        return "failed", "ran and failed, kept as skipped: %s" % note
    return "failed", note
