"""Show the server who the user is: by the agent's keys, by key files, by answers to its questions."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.devices.ssh_config import Settings
from edgekit.errors import OutsideFailure, clean, count

if TYPE_CHECKING:
    import paramiko

AGENT_SECONDS = 60.0  # an agent may wait for the user's consent
PERSON_SECONDS = 300.0  # to type an answer
ATTEMPTS = 3  # to type a password, as in OpenSSH
TYPED = ("password", "keyboard-interactive")

Ask = Callable[[str], str]


class LoginRefused(OutsideFailure):
    """The server does not let the user in."""


class NobodyAnswers(Exception):
    """A question that nobody is there to answer."""


class Answers:
    """What the user typed, kept in memory alone, so that a connection can be made again without asking.

    Attributes:
        keys: the private keys that a passphrase opened, by their files.
    """

    def __init__(self, ask: Ask | None) -> None:
        self._ask = ask
        self._typed: dict[str, str] = {}
        self.keys: dict[Path, paramiko.PKey] = {}

    @property
    def can_ask(self) -> bool:
        """Whether there is somebody."""
        return self._ask is not None

    def give(self, question: str) -> str:
        """The answer, asked for once.

        Raises:
            NobodyAnswers: nobody is there.
        """
        if question not in self._typed:
            if self._ask is None:
                raise NobodyAnswers(question)
            self._typed[question] = self._ask(question)
        return self._typed[question]

    def forget(self, question: str) -> None:
        """It was wrong."""
        self._typed.pop(question, None)

    def silence(self) -> None:
        """Ask nobody from now on; what was typed is still given."""
        self._ask = None


def log_in(transport: paramiko.Transport, settings: Settings, answers: Answers, where: str) -> None:
    """Log in by the first way that the server accepts.

    Raises:
        LoginRefused: it accepts none.
        paramiko.SSHException, EOFError, OSError: the connection broke.
    """
    import paramiko

    try:
        further = transport.auth_none(settings.user)
    except paramiko.BadAuthenticationType as error:
        further = list(error.allowed_types)
    tried = 0
    if "publickey" in further and not transport.is_authenticated():
        further, tried = _by_keys(transport, settings, answers, further, where)
    if not transport.is_authenticated():
        _by_answers(transport, settings, answers, further, where)
    if not transport.is_authenticated():
        raise _refused(settings, answers, further, tried, where)


def _by_keys(
    transport: paramiko.Transport, settings: Settings, answers: Answers, further: list[str], where: str
) -> tuple[list[str], int]:
    """What the server wants next, and how many keys were tried; it is done where the transport says so."""
    import paramiko

    tried = 0
    with _agent_keys(settings) as agent_keys:
        for key in _keys(settings, agent_keys, answers):
            tried += 1
            try:
                return transport.auth_publickey(settings.user, key), tried
            except paramiko.BadAuthenticationType as error:
                return list(error.allowed_types), tried
            except paramiko.SSHException as error:
                if not transport.is_active():
                    what = f"the server closed the connection after {count(tried, 'key')}"
                    todo = "name the right one in ~/.ssh/config, with IdentitiesOnly yes"
                    raise LoginRefused(what, where=where, todo=todo) from error
    return further, tried


@contextlib.contextmanager
def _agent_keys(settings: Settings) -> Iterator[Sequence[Any]]:
    """The keys of the agent; none where there is no agent or it does not answer."""
    import paramiko

    path = os.environ.get("SSH_AUTH_SOCK", "") if settings.agent is None else settings.agent
    if not path:
        yield ()
        return
    agent = paramiko.agent.AgentSSH()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(AGENT_SECONDS)
        try:
            connection.connect(path)
            agent._connect(connection)  # type: ignore[attr-defined] # the public class takes the path from the environment alone
        except (OSError, paramiko.SSHException, ValueError):
            pass
        yield agent.get_keys()


def _keys(settings: Settings, agent_keys: Sequence[Any], answers: Answers) -> Iterator[paramiko.PKey]:
    """The keys to try, in order: the agent's, then files that are open, then those behind a passphrase."""
    wanted = {blob for path in settings.keys if (blob := _public(path)) is not None}
    named = [key for key in agent_keys if key.asbytes() in wanted]
    yield from named
    if not settings.only_keys:
        yield from (key for key in agent_keys if key.asbytes() not in wanted)
    seen = {key.asbytes() for key in agent_keys}
    locked: list[Path] = []
    for path in settings.keys:
        key = answers.keys.get(path) or _open_key(path, None)
        if key is None:
            locked += [path] if _is_locked(path) and _public(path) not in seen else []
        elif key.asbytes() not in seen:
            yield key
    for path in locked:
        opened = _unlock(path, answers)
        if opened is not None:
            yield opened


def _public(path: Path) -> bytes | None:
    """The public half of a key file, from the `.pub` beside it."""
    import paramiko

    with contextlib.suppress(OSError, ValueError, IndexError, paramiko.SSHException):
        blob = paramiko.pkey.PublicBlob.from_file(str(path.with_name(f"{path.name}.pub")))
        return bytes(blob.key_blob)
    return None


def _open_key(path: Path, passphrase: str | None) -> paramiko.PKey | None:
    """The key in a file with the certificate beside it; None where it is none, or does not open so."""
    import paramiko

    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        with contextlib.suppress(OSError, ValueError, paramiko.SSHException):
            key = kind.from_private_key_file(str(path), passphrase)
            certificate = path.with_name(f"{path.name}-cert.pub")
            if certificate.is_file():
                key.load_certificate(str(certificate))
            return key
    return None


def _is_locked(path: Path) -> bool:
    import paramiko

    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            kind.from_private_key_file(str(path))
        except paramiko.PasswordRequiredException:
            return True
        except (OSError, ValueError, paramiko.SSHException):
            continue
    return False


def _unlock(path: Path, answers: Answers) -> paramiko.PKey | None:
    """The key behind a passphrase; an empty answer passes it over."""
    question = f"passphrase of {path}: "
    for _ in range(ATTEMPTS):
        try:
            passphrase = answers.give(question)
        except NobodyAnswers:
            return None
        key = _open_key(path, passphrase) if passphrase else None
        if key is not None:
            answers.keys[path] = key
        answers.forget(question)  # the opened key is enough
        if key is not None or not passphrase:
            return key
    return None


def _by_answers(
    transport: paramiko.Transport, settings: Settings, answers: Answers, further: list[str], where: str
) -> None:
    """By what the user types; leaves the transport as it is where nobody can be asked.

    Raises:
        LoginRefused: what was typed is wrong.
    """
    import paramiko

    way = next((way for way in TYPED if way in further), None)
    if way is None:
        return
    transport.auth_timeout = PERSON_SECONDS
    error: paramiko.AuthenticationException | None = None
    for _ in range(ATTEMPTS if answers.can_ask else 1):
        asked: list[str] = []
        try:
            _type(transport, settings, answers, way, asked)
            return
        except NobodyAnswers:
            return
        except paramiko.AuthenticationException as refused:
            error = refused
            for question in asked:
                answers.forget(question)
        if not transport.is_active():
            break
    what = f"the password of {settings.user} is wrong"
    raise LoginRefused(what, where=where, todo="try again, or use a key (`ssh-copy-id`)") from error


def _type(
    transport: paramiko.Transport, settings: Settings, answers: Answers, way: str, asked: list[str]
) -> None:
    """Answer what the server asks; the questions are added to `asked`."""
    whom = f"{settings.user} on {settings.host}"

    def answer(question: str) -> str:
        asked.append(question)
        return answers.give(question)

    def fill(title: str, instructions: str, prompts: Sequence[tuple[str, bool]]) -> list[str]:
        del title, instructions
        return [answer(f"{whom}: {clean(prompt)} ") for prompt, _ in prompts]

    if way == "password":
        transport.auth_password(settings.user, answer(f"password of {whom}: "), fallback=False)
    else:
        transport.auth_interactive(settings.user, fill)


def _refused(
    settings: Settings, answers: Answers, further: list[str], tried: int, where: str
) -> LoginRefused:
    keys = "there is no key to show"
    if tried:
        keys = f"none of the {tried} keys was accepted" if tried > 1 else "the key was not accepted"
    if any(way in further for way in TYPED) and not answers.can_ask:
        port = "" if settings.port == 22 else f"-p {settings.port} "
        return LoginRefused(
            f"{keys}, and nobody can be asked for a password",
            where=where,
            todo=f"run `ssh-copy-id {port}{settings.user}@{settings.host}` once, or `ssh-add` the right key",
        )
    return LoginRefused(
        f"{keys}, and the server takes nothing but {', '.join(further) or 'another user'}",
        where=where,
        todo=f"add the key to authorized_keys of {settings.user} there, or name another in ~/.ssh/config",
    )
