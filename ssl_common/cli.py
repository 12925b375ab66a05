"""The contract of every command: its options, its errors, its exit status, its talk on stderr."""

import contextlib
import os
import sys
import time
import traceback

import click

from ssl_common import legible, processes, ranks, shortage, streams, values
from ssl_common.streams import DataError


class Tool(click.Command):
    """A click command that keeps the contract: one line a failure, and its exit status."""

    debug = False

    def main(self, args=None, prog_name=None, **_extra):
        streams.settle()
        sys.unraisablehook = self.ignored
        try:
            with processes.stopping():
                if not os.environ.get(ranks.RUN):  # a rank is watched already
                    shortage.watch(self.complain)
                status = self.obey(args)
                processes.finish()
        except processes.Stopped as error:  # as it began, or ended
            status = self.stopped(str(error))
        shortage.ended()
        sys.exit(status)

    def ignored(self, what):
        """Say nothing of an exception that Python has to ignore, WHAT, save under --debug."""
        if self.debug:
            sys.__unraisablehook__(what)

    def obey(self, args):
        """Do what the command line ARGS says; return the exit status."""
        try:
            return super().main(args, prog_name=self.name, standalone_mode=False)
        except click.UsageError as error:
            return self.complain(f"{error.format_message()} (see {self.name} --help)", 2)
        except processes.Stopped as error:
            return self.stopped(str(error))
        except click.exceptions.Abort:
            return self.stopped("SIGINT")
        except Exception as error:  # --help on a full disk
            return self.failed(error)

    def parse_args(self, ctx, args):
        """Parse ARGS; raise UsageError for what they are where $DIR is not set: "$DIR", -o $DIR."""
        given, _rest, _order = self.make_parser(ctx).parse_args(list(args))
        params = self.get_params(ctx)
        names = {name for param in params for name in param.opts if name.startswith("-")}
        for param in params:
            value = given.get(param.name)
            said = set(value if isinstance(value, list | tuple) else [value])
            if "" in said:
                raise click.BadParameter("it is empty: is a variable not set?", ctx, param)
            if isinstance(param, click.Option) and (missed := said & names):
                message = f"{missed.pop()} is an option itself: is a variable not set?"
                raise click.BadParameter(message, ctx, param)
        return super().parse_args(ctx, args)

    def invoke(self, ctx):
        try:
            _check_threads()
            super().invoke(ctx)
            sys.stdout.flush()
            return 0
        except (click.UsageError, click.exceptions.Exit):
            raise
        except streams.TerminalError as error:
            return self.complain(f"{error} (see {self.name} --help)", 2)
        except DataError as error:
            return self.complain(str(error), 1)
        except (processes.Stopped, KeyboardInterrupt) as error:
            return self.stopped(str(error) or "SIGINT")
        except Exception as error:
            if processes.raised:  # a C extension that was being imported made another error of it
                return self.stopped(processes.raised[0])
            return self.failed(error)

    def failed(self, error):
        """Say what ERROR is, of the system or unforeseen; return the status."""
        streams.abandon(1)
        if isinstance(error, BrokenPipeError):
            return self.complain("", 1)  # the reader left: it knows
        if lacking := shortage.lacking(error) or shortage.chattered():
            return self.complain(lacking, 1)
        if isinstance(error, OSError):
            name = legible.text("standard output" if error.filename is None else error.filename)
            return self.complain(f"{name}: {error.strerror or error}", 1)
        # A bug of ours: still one line, with the way to see more.
        what = f"{type(error).__name__}: {error}"
        return self.complain(f"internal error, see it whole with --debug: {what}", 1, False)

    def stopped(self, reason):
        """Say that REASON, a signal, stopped the command; return its status."""
        streams.abandon(1)
        if lacking := shortage.chattered():  # a library that got no thread sends SIGINT to itself
            return self.complain(lacking, 1)
        return self.complain(f"stopped by {reason}: run it again to go on", processes.STOPPED)

    def complain(self, message, status, sure=True):
        """Say MESSAGE in one line on stderr (with the traceback under --debug); return STATUS.

        One of many processes of a command leaves it to the parent, which says that of the first;
        unless it is SURE, the reason may be that another one died.
        """
        processes.finish()
        for line in traceback.format_exc().splitlines() if self.debug else ():
            _talk(line)
        line = legible.line(message)
        if path := ranks.last_words(sure):
            with contextlib.suppress(OSError):  # the parent has gone
                path.write_text(line, "utf-8")
        elif line:
            _talk(f"{self.name}: {line}")
        return status


def _check_threads():
    """Raise DataError where OMP_NUM_THREADS is no number: each library would say so, or guess."""
    said = os.environ.get("OMP_NUM_THREADS", "1")
    if not all(values.whole(each.strip(" "), 4096) for each in said.split(",")):
        wanted = "not a number of threads, 1 to 4096: mend it, or unset it"
        raise DataError(f"OMP_NUM_THREADS={legible.quoted(said)}: {wanted}")


@contextlib.contextmanager
def journal(unit, patient):
    """Yield what a long run tells, and is told: emit, say, stopping and progress (in UNITs).

    EMIT writes a line of bytes on standard output, at once; PATIENT is as deferring_stop takes it.
    """
    with (
        streams.writing("-", binary=False) as stream,
        processes.deferring_stop(patient) as stopping,
        Progress(unit) as progress,
    ):

        def emit(line):
            stream.write(line)
            stream.flush()

        yield {"emit": emit, "say": remark, "stopping": stopping, "progress": progress}


def command(name):
    """Make a function the command NAME, with -h, --version, -q and --debug."""

    def decorate(function):
        for option in (_debug_option, _quiet_option, _version_option):
            function = option(function)
        settings = {"help_option_names": ["-h", "--help"], "show_default": True}
        return click.command(name, cls=Tool, context_settings=settings)(function)

    return decorate


def _show_version(ctx, _param, value):
    if value:
        from importlib.metadata import version

        click.echo(f"{ctx.command.name} {version('ssl-bench')}")
        ctx.exit()


_version_option = click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
_quiet_option = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=lambda ctx, _param, value: ctx.meta.__setitem__("quiet", value),
    help="Say nothing on success.",
)
_debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=lambda ctx, _param, value: setattr(ctx.command, "debug", value),
    help="Show the traceback of an error.",
)
output_option = click.option(
    "-o", "--output", default="-", metavar="FILE", help="Write here; - is standard output."
)
seed_option = click.option(
    "--seed", type=values.Whole(0, 2**63 - 1), default=0, help="Seed of all that is drawn."
)


def _usual_workers():
    from ssl_common import crew  # here: most commands have no use for it

    return crew.usual_workers()


def workers(text):
    """Return the option -j, one per core by default, with TEXT as its help."""
    return click.option(
        "-j",
        "--workers",
        type=values.Whole(0, 1024),
        default=_usual_workers,
        show_default="one per core",
        help=text,
    )


workers_option = workers(
    "Processes that work side by side; 0 works in this one. The result is the same."
)
root_option = click.option(
    "--root",
    type=click.Path(file_okay=False),
    default=".",
    help="Folder that relative paths of the manifest start from.",
)
gpus_option = click.option(
    "--gpus",
    type=values.Whole(1, 1024),
    default=1,
    help="GPUs of this machine; processes on a CPU.",
)
index_option = click.option(
    "--index-dir",
    type=click.Path(file_okay=False),
    show_default="beside the manifest, or in the cache folder",
    help="Where the line index of a large manifest is kept.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    show_default="cuda where there is one",
    help="Where it runs.",
)


checkpoint_option = click.option(
    "--checkpoint-every",
    "every",
    type=values.Interval(),
    multiple=True,
    default=("1epoch", "30min"),
    help="Interval; may be repeated.",
)


def max_bad(usual, text):
    """Return the option --max-bad, a share that is USUAL by default, with TEXT as its help."""
    return click.option("--max-bad", type=values.Share(), default=usual, help=text)


_training_options = (
    click.option("-o", "--output", required=True, metavar="MODEL.pt", help="What is trained."),
    click.option("--epochs", type=values.Whole(1, values.MANY), help="Instead of the recipe's."),
    click.option(
        "--iterations", type=values.Whole(1, values.MANY), help="Steps, instead of epochs."
    ),
    click.option("--batch", type=values.Whole(2, values.BATCH), help="Images a step, in all."),
    click.option("--lr", type=values.Positive(1e6), help="Rate at that batch."),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        show_default="bf16 on a GPU",
        help="Of products.",
    ),
    gpus_option,
    click.option(
        "--accumulate", type=values.Whole(1, 1_000_000), default=1, help="Pieces of a share."
    ),
    click.option("--sync-bn", is_flag=True, help="Let batch norm see the images of all GPUs."),
    click.option("--max-restarts", type=values.Whole(0, 1000), default=3, help="If a rank dies."),
    click.option("--keep-epochs", is_flag=True, help="Keep the checkpoint of each epoch."),
    checkpoint_option,
    max_bad("1%", "Images that may be unreadable; more stop the run."),
    index_option,
    device_option,
    root_option,
    seed_option,
    workers_option,
)


def training_options(function):
    """Add the options that every training command takes."""
    for option in reversed(_training_options):
        function = option(function)
    return function


def training(given, usual):
    """Take out of GIVEN, of training_options, what decides the result; USUAL is the recipe's batch.

    Returns what recipes take, the options of training.driving.drive, and whether this process is
    a rank. Raises UsageError where the batch cannot be cut.
    """
    recipe = {key: given.pop(key) for key in ("batch", "lr", "epochs", "iterations")}
    if recipe["epochs"] and recipe["iterations"]:
        raise click.UsageError("--epochs and --iterations: give one of them")
    recipe["batch"] = recipe["batch"] or usual
    here = ranks.place()
    side_by_side = here.ranks if here else given["gpus"]
    pieces = side_by_side * given.pop("accumulate")
    if recipe["batch"] % pieces:
        message = f"--batch {recipe['batch']} is no multiple of {pieces} (GPUs x accumulation)"
        raise click.UsageError(message)
    options = {"seed": given.pop("seed"), "precision": given.pop("precision")}
    options |= {"micro_batch": recipe["batch"] // pieces}
    options |= {"synced_ranks": side_by_side if given.pop("sync_bn") else 1}
    return recipe, options, here is not None


def _once_each(_ctx, _param, tags):
    keys = [key for key, _value in tags]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise click.BadParameter(f"{legible.text(twice[0])} is given twice")
    return dict(tags)


tag_option = click.option(
    "--tag",
    "tags",
    type=values.Tag(),
    multiple=True,
    metavar="KEY=VALUE",
    callback=_once_each,
    help="A field of the record that the inputs do not say, as images=1000000; may be repeated.",
)


allow_seen_option = click.option(
    "--allow-seen",
    is_flag=True,
    help="Measure also on images that the training seems to have had; the record counts them.",
)


def input_argument(name, **extra):
    """Add the operand NAME: a file, where - or nothing is standard input."""
    return click.argument(name, default="-", metavar=f"[{name.upper()}]", **extra)


def taken(given, kind, takes, needs):
    """Take the options out of GIVEN that one kind of work alone TAKES; return those of KIND.

    Raises UsageError for one of NEEDS that is missing, and for one that is another kind's.
    """
    own = {name: given.pop(name) for names in takes.values() for name in names}
    for name in takes[kind]:
        if name in needs and own[name] is None:
            raise click.UsageError(f"{kind}: give --{name.replace('_', '-')}")
    for name in set(own) - set(takes[kind]):
        if own.pop(name):
            raise click.UsageError(f"--{name.replace('_', '-')}: not an option of {kind}")
    return own


def say(message):
    """Say how it ended, in one line on stderr unless -q: all is written, no signal undoes it."""
    processes.finish()
    remark(message)


def remark(message):
    """Say one line on stderr while work goes on, unless -q."""
    ctx = click.get_current_context()
    if not ctx.meta.get("quiet"):
        _talk(f"{ctx.command.name}: {message}")


def _talk(message, start="", end="\n"):
    """Write MESSAGE on stderr; where nobody listens, the work and its status are the same."""
    try:
        click.echo(start + legible.text(message) + end, err=True, nl=False)
    except OSError:
        streams.abandon(sys.stderr.fileno())


class Progress:
    """How far the work is, on stderr: a line redrawn on a terminal, one line a minute elsewhere.

    Call it with (done, total, note); TOTAL may be None where it is not known.
    """

    def __init__(self, unit):
        ctx = click.get_current_context()
        self.unit, self.name, self.quiet = unit, ctx.command.name, ctx.meta.get("quiet")
        self.start = self.shown = time.monotonic()
        self.first = None
        self.drawn = False

    @property
    def terminal(self):
        return sys.stderr.isatty()  # asked anew: a rank is given its stderr late

    def __call__(self, done, total=None, note=""):
        processes.heed()
        now = time.monotonic()
        self.first = done if self.first is None else self.first  # a resumed run starts late
        if self.quiet or now - self.shown < (0.2 if self.terminal else 60):
            return
        self.shown = now
        rate = (done - self.first) / (now - self.start)
        text = f"{self.name}: {done:,}" + (f" of {total:,}" if total else "") + f" {self.unit}"
        text += f", {rate:,.1f}/s" if rate >= 1 else f", {rate:.2g}/s"
        text += f", {note}" if note else ""
        if total and rate > 0:
            text += f", {_clock((total - done) / rate)} left"
        self.drawn = True
        _talk(text, *(("\r\x1b[K", "") if self.terminal else ()))

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        if self.terminal and self.drawn:
            _talk("", "\r\x1b[K", "")


def _clock(seconds):
    """Return SECONDS as people read it: 45 s, 12 min, 5 h 10 min, 12 d 3 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 2880:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
