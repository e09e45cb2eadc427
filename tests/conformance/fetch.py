"""Where foreign suites are kept once fetched: outside the tree, so that every
clone of it shares them. $FLOTILLA_CACHE names another place."""
import fcntl
import os
import shutil

from harness import run

HERE = os.path.dirname(os.path.abspath(__file__))


def cache(*names):
    root = os.environ.get("FLOTILLA_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
        "flotilla-conformance")
    return os.path.join(root, *names)


def once(name, make):
    """The folder `name` of the cache. make(folder) fills it the first time;
    what it did not finish is done again from the start."""
    folder = cache(name)
    os.makedirs(cache(), exist_ok=True)
    with open(folder + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(os.path.join(folder, ".done")):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            make(folder)
            open(os.path.join(folder, ".done"), "w").close()
    return folder


def script(name, timeout=900):
    """For once(): runs foreign/NAME with the folder as its argument."""
    def make(folder):
        run([os.path.join(HERE, "foreign", name), folder], timeout=timeout)
    return make


def npm_pack(folder, package, version):
    """Unpacks an npm package's own archive to folder/package."""
    run(["sh", "-c", "cd \"$0\" && npm pack --silent \"$1\" >/dev/null &&"
         " tar xzf ./*.tgz && rm ./*.tgz", folder,
         "%s@%s" % (package, version)], timeout=300)
