"""The contract of every command: its options, its errors, its exit status, its talk on stderr."""

import contextlib
import os
import re
import sys
import time
import traceback

import click

from ssl_common import processes, streams
from ssl_common.streams import DataError


class Tool(click.Command):
    """A click command that keeps the contract: one line a failure, and its exit status."""

    debug = False

    def main(self, args=None, prog_name=None, **_extra):
        try:
            status = super().main(args, prog_name=self.name, standalone_mode=False)
        except click.UsageError as error:
            status = self.complain(f"{error.format_message()} (see {self.name} --help)", 2)
        except click.exceptions.Abort:
            status = processes.STOPPED
        sys.exit(status)

    def invoke(self, ctx):
        try:
            with processes.stopping():
                super().invoke(ctx)
                sys.stdout.flush()
            return 0
        except (click.UsageError, click.exceptions.Exit):
            raise
        except streams.TerminalError as error:
            return self.complain(f"{error} (see {self.name} --help)", 2)
        except DataError as error:
            return self.complain(str(error), 1)
        except BrokenPipeError:
            streams.abandon(1)
            return self.complain("", 1)  # the reader left: it knows
        except OSError as error:
            streams.abandon(1)
            reason = error.strerror or str(error)
            return self.complain(f"{error.filename or 'standard output'}: {reason}", 1)
        except (processes.Stopped, KeyboardInterrupt) as error:
            return self.stopped(str(error) or "SIGINT")
        except MemoryError:
            return self.complain("not enough memory", 1)
        except Exception as error:  # a bug of ours: still one line, with the way to see more
            if processes.raised:  # a C extension that was being imported made another error of it
                return self.stopped(processes.raised[0])
            streams.abandon(1)
            what = f"{type(error).__name__}: {error}"
            return self.complain(f"internal error, see it whole with --debug: {what}", 1, False)

    def stopped(self, reason):
        """Say that REASON, a signal, stopped the command; return its status."""
        streams.abandon(1)
        return self.complain(f"stopped by {reason}: run it again to go on", processes.STOPPED)

    def complain(self, message, status, sure=True):
        """Say MESSAGE in one line on stderr (with the traceback under --debug); return STATUS.

        One of many processes of a command leaves it to the parent, which says that of the first;
        unless it is SURE, the reason may be that another one died.
        """
        if self.debug:
            traceback.print_exc()
        line = " ".join(message.split())
        if path := os.environ.get(processes.LAST_WORDS):
            path = path if sure else f"{os.path.splitext(path)[0]}.{processes.UNSURE}"
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(line)
        elif line:
            _talk(f"{self.name}: {line}")
        return status


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

        yield {"emit": emit, "say": say, "stopping": stopping, "progress": progress}


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
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Seed of all that is drawn."
)


def _usual_workers():
    from ssl_common import crew  # here: most commands have no use for it

    return crew.usual_workers()


def workers(text):
    """Return the option -j, one per core by default, with TEXT as its help."""
    return click.option(
        "-j",
        "--workers",
        type=click.IntRange(min=0),
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
    type=click.IntRange(min=1),
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


class _Interval(click.ParamType):
    """An interval (count, unit): 500steps, 1epoch or 30min."""

    name = "interval"

    def convert(self, value, param, ctx):
        match = re.fullmatch(r"([1-9]\d*)(step|epoch|min)s?", value)
        if not match:
            self.fail(f"{value!r} is not like 500steps, 1epoch or 30min", param, ctx)
        return int(match[1]), match[2]


checkpoint_option = click.option(
    "--checkpoint-every",
    "every",
    type=_Interval(),
    multiple=True,
    default=("1epoch", "30min"),
    help="Interval; may be repeated.",
)


class _Share(click.ParamType):
    """A share of all, 0 to 1: 1% or 0.01."""

    name = "share"

    def convert(self, value, param, ctx):
        with contextlib.suppress(ValueError):
            share = float(value.rstrip("%")) / (100 if value.endswith("%") else 1)
            if 0 <= share <= 1:
                return share
        self.fail(f"{value!r} is not like 1% or 0.01", param, ctx)


def max_bad(usual, text):
    """Return the option --max-bad, a share that is USUAL by default, with TEXT as its help."""
    return click.option("--max-bad", type=_Share(), default=usual, help=text)


_training_options = (
    click.option("-o", "--output", required=True, metavar="MODEL.pt", help="What is trained."),
    click.option("--epochs", type=click.IntRange(min=1), help="Instead of the recipe's."),
    click.option("--iterations", type=click.IntRange(min=1), help="Steps, instead of epochs."),
    click.option("--batch", type=click.IntRange(min=2), help="Images a step, in all."),
    click.option("--lr", type=click.FloatRange(0, min_open=True), help="Rate at that batch."),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        show_default="bf16 on a GPU",
        help="Of products.",
    ),
    gpus_option,
    click.option("--accumulate", type=click.IntRange(min=1), default=1, help="Pieces of a share."),
    click.option("--sync-bn", is_flag=True, help="Let batch norm see the images of all GPUs."),
    click.option("--max-restarts", type=click.IntRange(min=0), default=3, help="If a rank dies."),
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
    is_rank = "TORCHELASTIC_RUN_ID" in os.environ
    ranks = int(os.environ["WORLD_SIZE"]) if is_rank else given["gpus"]
    pieces = ranks * given.pop("accumulate")
    if recipe["batch"] % pieces:
        message = f"--batch {recipe['batch']} is no multiple of {pieces} (GPUs x accumulation)"
        raise click.UsageError(message)
    options = {"seed": given.pop("seed"), "precision": given.pop("precision")}
    options |= {"micro_batch": recipe["batch"] // pieces}
    options |= {"synced_ranks": ranks if given.pop("sync_bn") else 1}
    return recipe, options, is_rank


def _parse_tags(_ctx, _param, values):
    for value in values:
        if "=" not in value.lstrip("="):
            raise click.BadParameter(f"{value!r} is not like layer=conv5")
    return dict(value.split("=", 1) for value in values)


tag_option = click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_parse_tags,
    help="A field of the record that the inputs do not say, as images=1000000; may be repeated.",
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
    """Say one line on stderr, unless -q."""
    ctx = click.get_current_context()
    if not ctx.meta.get("quiet"):
        _talk(f"{ctx.command.name}: {message}")


def _talk(text, end="\n"):
    """Write TEXT on stderr; where nobody listens, the work and its status are the same."""
    try:
        click.echo(text + end, err=True, nl=False)
    except OSError:
        streams.abandon(2)


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
        _talk(f"\r\x1b[K{text}" if self.terminal else text, end="" if self.terminal else "\n")

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        if self.terminal and self.drawn:
            _talk("\r\x1b[K", end="")


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
