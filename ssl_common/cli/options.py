"""Options shared by several commands, with the same meaning in each; options of dataclasses."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import Any

import click
from click.core import ParameterSource

from ssl_common import legible, values
from ssl_common.options import Option

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

output_option = click.option(
    "-o", "--output", default="-", metavar="FILE", help="Write here; - is standard output."
)
seed_option = click.option(
    "--seed", type=values.Whole(0, 2**63 - 1), default=0, help="Seed of all random numbers."
)


def _usual_workers() -> int:
    from ssl_common import crew  # here: most commands have no use for it

    return crew.usual_workers()


def workers(text: str) -> Decorator:
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
    "Worker processes; 0 works in the main process. The result does not depend on it."
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
    help="GPUs of this machine to use; with --device cpu, processes.",
)
index_option = click.option(
    "--index-dir",
    type=click.Path(file_okay=False),
    show_default="beside the manifest, or in the cache folder",
    help="Folder for the line index of a large manifest.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    show_default="cuda where there is one",
    help="Processor to compute on.",
)


checkpoint_option = click.option(
    "--checkpoint-every",
    type=values.Interval(),
    multiple=True,
    default=("1epoch", "30min"),
    help="Interval between checkpoints, as 500steps, 1epoch or 30min; may be repeated.",
)


def max_bad(usual: str, text: str) -> Decorator:
    """Return the option --max-bad, a share that is USUAL by default, with TEXT as its help."""
    return click.option("--max-bad", type=values.Share(), default=usual, help=text)


def _once_each(_ctx: click.Context, _param: click.Parameter, tags: Any) -> dict[str, str]:
    keys = [key for key, _value in tags]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise click.BadParameter(f"{legible.text(twice[0])} is given twice")
    return dict(tags)


def _pairs(option: str, name: str, text: str) -> Any:
    return click.option(
        option,
        name,
        type=values.Tag(),
        multiple=True,
        metavar="KEY=VALUE",
        callback=_once_each,
        help=text,
    )


tag_option = _pairs(
    "--tag",
    "tags",
    "Set a field of the record that the inputs lack, as images=1000000; may be repeated.",
)
env_arg_option = _pairs(
    "--env-arg",
    "env_args",
    "Argument that the environment is made with, as frame_skip=4; may be repeated.",
)


allow_seen_option = click.option(
    "--allow-seen",
    is_flag=True,
    help="Measure also on images that the training seems to have had; the record counts them.",
)


def input_argument(name: str, **extra: Any) -> Decorator:
    """Add the operand NAME: a file, where - or nothing is standard input."""
    return click.argument(name, default="-", metavar=f"[{name.upper()}]", **extra)


# ---- Options of dataclasses ----------------------------------------------------------------------

SHARED: dict[str, Decorator] = {
    "checkpoint-every": checkpoint_option,
    "device": device_option,
    "env-arg": env_arg_option,
    "gpus": gpus_option,
    "index-dir": index_option,
    "max-bad": max_bad("1%", "Share of images that may be unreadable; more stop the run."),
    "root": root_option,
    "seed": seed_option,
    "workers": workers_option,
}


def declared(kind: type, name: str) -> Decorator:
    """Add an option for each field of the dataclass KIND; the function gets a KIND as NAME."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_options(**given: Any) -> Any:
            own = {each.name: given.pop(each.name) for each in fields(kind)}
            return function(**given, **{name: kind(**own)})

        command: Callable[..., Any] = with_options
        for each in reversed(fields(kind)):
            command = _option(each, required=True)(command)
        return command

    return decorate


def declared_by_kind(kinds: Mapping[str, type], by: str, name: str) -> Decorator:
    """Add the options of all the dataclasses KINDS, of which the argument BY names one.

    The function gets one of that kind as NAME. UsageError for an option of it that is missing, and
    for one that is another kind's.
    """
    every = {each.name: each for kind in kinds.values() for each in fields(kind)}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_options(**given: Any) -> Any:
            kind = kinds[given[by]]
            own = {key: given.pop(key) for key in every}
            for each in fields(kind):
                if each.metadata["option"].required and own[each.name] is None:
                    raise click.UsageError(f"{given[by]}: give {_called(each)[0]}")
            taken = {each.name: own.pop(each.name) for each in fields(kind)}
            context = click.get_current_context()
            for key in own:
                if context.get_parameter_source(key) is not ParameterSource.DEFAULT:
                    raise click.UsageError(
                        f"{_called(every[key])[0]}: not an option of {given[by]}"
                    )
            return function(**given, **{name: kind(**taken)})

        command: Callable[..., Any] = with_options
        for each in reversed(every.values()):
            command = _option(each, required=False)(command)
        return command

    return decorate


def _called(each: "Field[Any]") -> tuple[str, ...]:
    option: Option = each.metadata["option"]
    return option.names or (f"--{each.name.replace('_', '-')}",)


def _option(each: "Field[Any]", required: bool) -> Decorator:
    """Return the option of the command line that the field EACH is."""
    option: Option = each.metadata["option"]
    if option.shared:
        return SHARED[option.shared]
    how: dict[str, Any] = {"help": option.help, "metavar": option.metavar, "default": each.default}
    if each.default is False:
        return click.option(*_called(each), each.name, is_flag=True, help=option.help)
    if option.of:
        how["type"] = click.Choice(option.of)
    elif isinstance(option.least, int):
        how["type"] = values.Whole(option.least, int(option.most or values.MANY))
    elif option.most:
        how["type"] = values.Positive(option.most)
    if option.usual:
        how["show_default"] = option.usual
    if required and option.required:
        del how["default"]  # to click a default of None is a value: nothing would be missing
    return click.option(*_called(each), each.name, required=required and option.required, **how)
