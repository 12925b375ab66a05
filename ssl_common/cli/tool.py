"""The contract of every command: its errors, its exit status, one line for each failure."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from ssl_common import legible, processes, shortage, streams, values
from ssl_common.cli.talk import talk
from ssl_common.options import OptionError
from ssl_common.ranks import placement
from ssl_common.streams import DataError


class Tool(click.Command):
    """A click command that keeps the contract: one line a failure, and its exit status."""

    debug = False

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **_extra: Any
    ) -> NoReturn:
        streams.settle()
        sys.unraisablehook = self.ignored
        try:
            with processes.stopping():
                if not os.environ.get(placement.RUN):  # a rank is watched already
                    shortage.watch(self.complain)
                status = self.obey(args)
                processes.finish()
        except processes.Stopped as error:  # as it began, or ended
            status = self.stopped(str(error))
        shortage.ended()
        sys.exit(status)

    def ignored(self, what: Any) -> None:
        """Say nothing of an exception that Python has to ignore, WHAT, save under --debug."""
        if self.debug:
            sys.__unraisablehook__(what)

    def obey(self, args: Sequence[str] | None) -> int:
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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
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

    def invoke(self, ctx: click.Context) -> int:
        try:
            _check_threads()
            super().invoke(ctx)
            sys.stdout.flush()
            return 0
        except (click.UsageError, click.exceptions.Exit):
            raise
        except (streams.TerminalError, OptionError) as error:
            return self.complain(f"{error} (see {self.name} --help)", 2)
        except DataError as error:
            return self.complain(str(error), 1)
        except (processes.Stopped, KeyboardInterrupt) as error:
            return self.stopped(str(error) or "SIGINT")
        except Exception as error:
            if processes.raised:  # a C extension that was being imported made another error of it
                return self.stopped(processes.raised[0])
            return self.failed(error)

    def failed(self, error: Exception) -> int:
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

    def stopped(self, reason: str) -> int:
        """Say that REASON, a signal, stopped the command; return its status."""
        streams.abandon(1)
        if lacking := shortage.chattered():  # a library that got no thread sends SIGINT to itself
            return self.complain(lacking, 1)
        return self.complain(f"stopped by {reason}: run it again to go on", processes.STOPPED)

    def complain(self, message: str, status: int, sure: bool = True) -> int:
        """Say MESSAGE in one line on stderr (with the traceback under --debug); return STATUS.

        One of many processes of a command leaves it to the parent, which says that of the first;
        unless it is SURE, the reason may be that another one died.
        """
        processes.finish()
        for line in traceback.format_exc().splitlines() if self.debug else ():
            talk(line)
        line = legible.line(message)
        if path := placement.last_words(sure):
            with contextlib.suppress(OSError):  # the parent has gone
                path.write_text(line, "utf-8")
        elif line:
            talk(f"{self.name}: {line}")
        return status


def _check_threads() -> None:
    """Raise DataError where OMP_NUM_THREADS is no number: each library would say so, or guess."""
    said = os.environ.get("OMP_NUM_THREADS", "1")
    if not all(values.whole(each.strip(" "), 4096) for each in said.split(",")):
        wanted = "not a number of threads, 1 to 4096: mend it, or unset it"
        raise DataError(f"OMP_NUM_THREADS={legible.quoted(said)}: {wanted}")


def command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function the command NAME, with -h, --version, -q and --debug."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        for option in (_debug_option, _quiet_option, _version_option):
            function = option(function)
        settings = {"help_option_names": ["-h", "--help"], "show_default": True}
        return click.command(name, cls=Tool, context_settings=settings)(function)

    return decorate


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
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
