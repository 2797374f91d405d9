"""`chatcompletion-chat`: ask a model from the terminal.

    chatcompletion-chat "question"                 one answer
    cat file | chatcompletion-chat "summarise"     the question, then the file
    chatcompletion-chat                            a conversation, on a terminal

The exit status is 0 after an answer or a conversation, 1 if the server refused the request or the
answer broke off, 2 if an argument or a variable is wrong, 3 if the server cannot be reached, and
130 after Ctrl-C.
"""

if __name__ == "__main__":
    from process.interrupts import end_at_once

    end_at_once()  # before the other imports, which take most of the start

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Final

from chat.answering import Conversation, Door, Screen
from chat.ask_error import AskError
from process import interrupts
from process.command_line import CommandParser, discard, program
from process.log import SILENT_GRPC

WRONG: Final = 2
"""The exit status if an argument or a variable is wrong."""
INTERRUPTED: Final = 128 + signal.SIGINT
"""The exit status after Ctrl-C."""

KEY: Final = "CHAT_KEY"
BASE_URL: Final = ("CHAT_BASE_URL", "http://127.0.0.1:8080/v1")
TARGET: Final = ("CHAT_TARGET", "127.0.0.1:50051")

LARGEST_INPUT: Final = 32 * 1024 * 1024
"""Maximum bytes of the standard input: as many as the service takes by default."""

_EPILOG: Final = f"""\
{KEY} is the API key. An answer goes to the standard output, its tokens and its cost to the
standard error. Ctrl-C stops an answer; at the prompt, Ctrl-C or Ctrl-D leaves.
Exit status: 0 answered, 1 refused or broken off, 2 wrong argument or variable, 3 server not
reached, {INTERRUPTED} stopped by Ctrl-C. See docs/chat.md.
"""


def parser(name: str, environment: Mapping[str, str]) -> CommandParser:
    """Return the parser of the arguments, with the environment's defaults."""
    made = CommandParser(
        prog=name,
        description="Ask a model. Without a question, on a terminal, it holds a conversation.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("question", nargs="*", help="the question; piped input is added to it")
    made.add_argument("--model", default="", help="default: the first that the server lists")
    made.add_argument("--system", default="", help="instructions that precede the conversation")
    made.add_argument(
        "--json", action="store_true", help="print each answer as one line of JSON, not streamed"
    )
    made.add_argument("--grpc", action="store_true", help="use gRPC in place of REST")
    for flag, (variable, otherwise), metavar in (
        ("--base-url", BASE_URL, "URL"),
        ("--target", TARGET, "HOST:PORT"),
    ):
        made.add_argument(
            flag,
            metavar=metavar,
            default=environment.get(variable) or otherwise,
            help=f"the address for {'REST' if metavar == 'URL' else 'gRPC'}; "
            f"default: ${variable}, or {otherwise}",
        )
    return made


def main() -> int:
    """Run the command and return its exit status."""
    os.environ.setdefault(*SILENT_GRPC)
    name = program("chat", sys.argv[0])
    try:
        with interrupts.raised():
            return _main(name, sys.argv[1:], os.environ)
    except AskError as error:
        print(f"{name}: {error.line()}", file=sys.stderr)  # noqa: T201 - for the person who asks
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the answer has left.
        discard(sys.stdout)
        return 128 + signal.SIGPIPE


def _main(name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    parse = parser(name, environment)
    asked = parse.parse_args(arguments)
    key = environment.get(KEY, "")
    if not key or not (key.isascii() and key.isprintable()):
        parse.error(f"{KEY} is not set, or is not a key. Run: export {KEY}=YOUR_KEY.")
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="replace")  # type: ignore[union-attr]
    is_person = sys.stdin.isatty()
    try:
        " ".join(arguments).encode()
        piped = "" if is_person else _piped()
        door = _door(asked, key)
    except UnicodeError:
        parse.error("the arguments and the standard input must be UTF-8 text")
    except ValueError as error:
        parse.error(str(error))
    question = "\n\n".join(filter(str.strip, (" ".join(asked.question), piped)))
    if not (question or is_person):
        parse.error("there is no question, as an argument or on the standard input")
    with closing(door):
        conversation = Conversation(
            door=door,
            screen=Screen(
                answers=sys.stdout,
                notes=sys.stderr,
                is_terminal=sys.stdout.isatty(),
                has_colour=sys.stderr.isatty() and not environment.get("NO_COLOR"),
            ),
            model=asked.model,
            as_json=asked.json,
            messages=[{"role": "system", "content": asked.system}] if asked.system else [],
        )
        if question:
            conversation.ask(question)
        else:
            from chat.prompting import converse  # noqa: PLC0415 - one answer does without

            converse(conversation)
    return 0


def _door(asked: argparse.Namespace, key: str) -> Door:
    # Each door does without the library of the other, which takes long to import.
    if asked.grpc:
        from chat.grpc_door import GrpcDoor  # noqa: PLC0415

        return GrpcDoor(asked.target, key)
    from chat.rest_door import RestDoor  # noqa: PLC0415

    return RestDoor(asked.base_url, key)


def _piped() -> str:
    """Return the standard input as text.

    Raises:
        UnicodeError: It is not UTF-8.
        ValueError: It is too large.
    """
    data = sys.stdin.buffer.read(LARGEST_INPUT + 1)
    if len(data) > LARGEST_INPUT:
        raise ValueError(f"the standard input is larger than {LARGEST_INPUT} bytes")
    return data.decode()


if __name__ == "__main__":
    sys.exit(main())
