"""`edgekit completion`."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    Example:
      eval "$(edgekit completion bash)"
    """
    from click.shell_completion import get_completion_class

    from edgekit.cli.main import edgekit

    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(edgekit, {}, "edgekit", "_EDGEKIT_COMPLETE").source())
