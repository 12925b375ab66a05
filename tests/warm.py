"""Processes of commands that do not import torch anew: each is forked from one that has.

Run as a script it is that one, which `Warm` starts: it imports all of ssl_common, waits for
requests on the socket that is its standard input, and answers each with the status of the command.
For tests of what a command does; test_contract.py sees to how it starts.
"""

import atexit
import contextlib
import importlib
import json
import os
import pkgutil
import resource
import signal
import socket
import subprocess
import sys
import threading
import warnings

# Those that import torch, or what takes as long.
COMMANDS = {"make-color-bins", "pretrain", "show-pretext", "convert-weights", "extract-features"}
COMMANDS |= {"train-detector", "detect"}
COMMANDS |= {"train-svm", "train-linear", "eval-linear", "make-proposals", "show-detections"}
COMMANDS |= {"unpack-nyuv2", "make-normals", "train-normals", "eval-normals", "show-normals"}
TINY = "tiny.py"  # a command with networks of few layers
COMMANDS |= {"finetune", "eval-finetune", "record-navigation", "train-navigator", "eval-navigator"}


# ---- Who asks -----------------------------------------------------------------------------------


class Warm:
    """What starts commands so; BEGIN is subprocess.Popen, and the process lives until close()."""

    def __init__(self, begin):
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = begin([sys.executable, __file__], stdin=theirs, start_new_session=True)

    def close(self):
        """End the process, and a command that is still running."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.socket.close()

    def run(self, argv, cwd, env, given=None, largest=None, **streams):
        """Run ARGV, of COMMANDS, in CWD with ENV and the bytes GIVEN on standard input.

        No file may grow beyond LARGEST bytes, if given. STREAMS are descriptors, or open files,
        for its stdin, stdout and stderr; what goes to none of them is captured, and is in what
        comes back, as from subprocess.run().
        """
        ours, theirs, made = {}, [], []
        for name in ("stdin", "stdout", "stderr"):
            stream = streams.get(name)
            if stream is None and name == "stdin" and given is None:
                made.append(stream := os.open(os.devnull, os.O_RDONLY))
            elif stream is None:
                ends = os.pipe()
                ours[name], stream = ends if name != "stdin" else ends[::-1]
                made.append(stream)
            theirs.append(stream if isinstance(stream, int) else stream.fileno())
        request = {"argv": argv, "cwd": os.fspath(cwd), "env": env, "largest": largest}
        socket.send_fds(self.socket, [json.dumps(request).encode()], theirs)
        for descriptor in made:
            os.close(descriptor)
        written = dict.fromkeys(("stdout", "stderr"), None)

        def read(name):
            with open(ours[name], "rb") as stream:
                written[name] = stream.read()

        captured = [name for name in written if name in ours]
        readers = [threading.Thread(target=read, args=(n,), daemon=True) for n in captured]
        for reader in readers:
            reader.start()
        if "stdin" in ours:
            with contextlib.suppress(BrokenPipeError), open(ours["stdin"], "wb") as stream:
                stream.write(given)
        for reader in readers:
            reader.join()
        status = int(self.socket.recv(64))
        return subprocess.CompletedProcess(argv, status, written["stdout"], written["stderr"])


# ---- Who is asked -------------------------------------------------------------------------------


def serve(asked):
    """Fork for each request on the socket ASKED; return the request in the process forked."""
    while True:
        request, descriptors, _flags, _address = socket.recv_fds(asked, 1 << 18, 3)
        if not request:
            os._exit(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # there are threads of OpenBLAS
            pid = os.fork()
        if not pid:
            asked.close()
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
                os.close(descriptor)
            return json.loads(request)
        for descriptor in descriptors:
            os.close(descriptor)
        asked.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def main():
    import numpy as np
    import sklearn.model_selection
    import sklearn.svm  # noqa: F401
    import ssl_tools
    import torch
    import torchvision  # noqa: F401

    import ssl_common

    asked = socket.socket(fileno=os.dup(0))
    for package in (ssl_common, ssl_tools):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    request = serve(asked)
    if request["largest"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest"],) * 2)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    np.random.seed()  # numpy draws the state at import; nothing may depend on it
    program, *words = request["argv"]
    command = os.path.basename(program)
    if command == TINY:
        import tiny  # noqa: F401  its networks are registered

        command, *words = words
    if "OMP_NUM_THREADS" in os.environ:  # torch has read that of its own environment
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    sys.argv, sys.path[0] = [program, *words], os.path.dirname(program)
    sys.orig_argv = [sys.executable, *request["argv"]]
    try:
        importlib.import_module(f"ssl_tools.{command.replace('-', '_')}").main()
    except SystemExit as end:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(
            end.code or 0
        )  # to take all those modules apart would cost what importing them does


if __name__ == "__main__":
    main()
