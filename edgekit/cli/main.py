"""The entry point: finds the command, prints every refusal as one line, and sets the exit status."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from edgekit import __version__
from edgekit.errors import EdgekitError

COMMANDS = {
    "build": "Compress, convert, verify and package a network for a target",
    "plan": "Show the candidates for a target with their predicted cost; builds nothing",
    "bench": "Measure a bundle, here, on devices over SSH, in emulated containers",
    "deploy": "Put a bundle into service on a device, list what is there, roll back",
    "package": "Make a bundle a container image, a Debian package or a Python wheel",
    "sign": "Sign a bundle with an SSH key",
    "verify": "Check a bundle: digests, signature, schema, golden outputs",
    "inspect": "Show a bundle or a model: layers, parameters, MACs, activation peak",
    "probe": "Look at a device: board, processor, clocks, system, Python and runtimes",
    "emulate": "Make and use emulated boards in containers",
    "doctor": "Check what edgekit needs on this machine, with the command that mends it",
    "targets": "List, show and validate targets and profiles",
    "completion": "Print the shell completion script",
}
INTERRUPTED, READER_GONE = 130, 141  # what a shell gives for SIGINT and SIGPIPE


class Commands(click.Group):
    """Imports a command's file when the command is called, so that `--help` starts as fast as click does."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order in which one uses them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of that name."""
        del ctx
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"edgekit.cli.{name}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is called; one that does not exist is refused with the near miss."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(args[0], possibilities=list(COMMANDS), ctx=ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from COMMANDS, importing none of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgekit")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def edgekit(debug: bool) -> None:  # `main` looks for --debug itself, wherever it stands
    """Fit a trained network to a device, with proof.

    \b
    Example:
      edgekit build examples/digits/task.py --target rpi4 -o dist/digits-rpi4
      edgekit bench dist/digits-rpi4

    Exit status: 0 met or predicted to be met, 1 internal error, 2 bad input, 3 budget not met or unproven,
    4 something outside is missing or failed, 5 verification failed, 130 interrupted.
    """
    del debug


def main() -> None:
    """Run the command line; the only place that prints errors and exits."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        sys.exit(
            edgekit.main(arguments, prog_name="edgekit", standalone_mode=False)
        )  # the code of ctx.exit()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "edgekit"
        message = error.format_message().rstrip(".")
        _say(f"error: {message}{'' if message.endswith('?') else ';'} see `{command} --help`")
        sys.exit(2)
    except (KeyboardInterrupt, click.exceptions.Abort):
        _say(f"interrupted; {left_behind(arguments)}")
        sys.exit(INTERRUPTED)
    except EdgekitError as error:
        _trace_if_debugging()
        _say(f"error: {error}")
        sys.exit(error.exit_status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(READER_GONE)
    except Exception as error:  # noqa: BLE001 - the last resort: one line, and where to find more
        _trace_if_debugging()
        _say(f"internal error: {type(error).__name__}: {error}; run `edgekit --debug ...` for the traceback")
        sys.exit(EdgekitError.exit_status)


def left_behind(arguments: list[str]) -> str:
    """What an interrupted command leaves: `build` and `plan` keep finished stages, unless told not to."""
    if {"build", "plan"} & set(arguments[:1]) and "--no-cache" not in arguments:
        return "finished stages are kept and a rerun goes on from there"
    return "nothing is kept, a rerun begins anew"


def _say(line: str) -> None:
    click.echo(" ".join(line.split()), err=True)


def _trace_if_debugging() -> None:
    if "--debug" in sys.argv:
        import traceback

        traceback.print_exc()
