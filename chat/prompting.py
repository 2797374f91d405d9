"""A conversation at a prompt, with line editing and history from prompt_toolkit."""

from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.output import create_output

from chat.answering import Conversation
from chat.ask_error import AskError

PROMPT: Final = FormattedText([("ansicyan", "> ")])


def converse(conversation: Conversation) -> None:
    """Ask questions from a prompt until Ctrl-C or Ctrl-D there. An error does not end it."""
    # With the answers in a file, the prompt is on the standard error.
    session: PromptSession[str] = PromptSession(output=create_output(always_prefer_tty=True))
    conversation.screen.note("Ctrl-C stops an answer. At the prompt, Ctrl-C or Ctrl-D leaves.")
    while True:
        try:
            question = session.prompt(PROMPT)
        except (KeyboardInterrupt, EOFError):
            return
        if not question.strip():
            continue
        try:
            conversation.ask(question)
        except KeyboardInterrupt:
            conversation.screen.note("stopped")
        except AskError as error:
            conversation.screen.note(error.line())
