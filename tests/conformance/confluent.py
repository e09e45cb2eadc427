"""Confluent's Python client for a script that any Python starts: `ck` is the
package, `ka` its administrator. Where it is not installed both are None, until
need_confluent has started the script again with a Python that has it."""
import os
import sys

from harness import venv_python

try:
    import confluent_kafka as ck
    import confluent_kafka.admin as ka
except ImportError:
    ck = ka = None


def need_confluent(build):
    """Comes back only where the client is there; else it is installed below
    the build folder, and the script begins anew."""
    if ck is None:
        python = venv_python(build, ["confluent-kafka"])
        os.execv(python, [python] + sys.argv)
