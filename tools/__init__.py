"""The commands of ssl-bench, installed as the package ssl_tools; each file is one command."""

import os
import sys


def _say_stopped(kind, error, traceback):
    """Let Ctrl-C while a command is still loaded be what it is later: one line, and status 75."""
    if kind is not KeyboardInterrupt:
        return sys.__excepthook__(kind, error, traceback)
    name = os.path.basename(sys.argv[0])
    sys.stderr.write(f"{name}: stopped by SIGINT: run it again to go on\n")
    os._exit(75)


sys.excepthook = _say_stopped
