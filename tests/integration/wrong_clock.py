"""Run a module as ``python -m`` does, in a process that sees another time of day; spans are right.

Arguments: by how many seconds its clock is fast (or, negative, slow), the module, and the module's arguments.
"""

import datetime
import runpy
import sys

import time_machine

# A script's directory comes first on the path: the server's modules are not to be looked for among tests.
del sys.path[0]
seconds, module = sys.argv[1:3]
sys.argv[1:] = sys.argv[3:]
with time_machine.travel(datetime.timedelta(seconds=float(seconds))):
    runpy.run_module(module, run_name="__main__", alter_sys=True)
