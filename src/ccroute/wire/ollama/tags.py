"""Splits thinking, between `<think>` and `</think>` at the start, from an answer's text.

Ollama leaves it in the text of a model that thinks although `think` is false, or has an unusual template.
"""

from typing import Final, Literal

_OPEN: Final = "<think>"
_CLOSE: Final = "</think>"


class ThoughtSplitter:
    """Splits thinking and answer, piece by piece. The text may be cut anywhere."""

    __slots__ = ("_begun", "_held", "_place")

    def __init__(self) -> None:
        self._held = ""  # what may be the beginning of a tag
        self._begun = False  # some thinking came
        self._place: Literal["before", "inside", "after", "answer"] = "before"

    @property
    def done(self) -> bool:
        """Whether the rest of the text is the answer."""
        return self._place == "answer"

    def feed(self, piece: str) -> tuple[str, str]:
        """Return the thinking and the answer that `piece` completes."""
        text, self._held = self._held + piece, ""
        thoughts = ""
        if self._place == "before":
            begun = text.lstrip()
            if _OPEN.startswith(begun):  # all of it, a part of it, or nothing
                self._held = text if begun != _OPEN else ""
                self._place = "inside" if begun == _OPEN else "before"
                return "", ""
            if not begun.startswith(_OPEN):
                self._place = "answer"
                return "", text
            self._place, text = "inside", begun[len(_OPEN) :]
        if self._place == "inside":
            thoughts, closed, text = text.partition(_CLOSE)
            if closed:
                self._place = "after"
            else:
                kept = next((n for n in range(len(_CLOSE) - 1, 0, -1) if thoughts.endswith(_CLOSE[:n])), 0)
                self._held = thoughts[len(thoughts) - kept :]
                thoughts = thoughts[: len(thoughts) - kept]
            if not self._begun:
                thoughts = thoughts.lstrip()
                self._begun = bool(thoughts)
        if self._place == "after":
            text = text.lstrip()
            self._place = "answer" if text else "after"
        return thoughts, text

    def end(self) -> tuple[str, str]:
        """Return the thinking and the answer in the rest: text that could have begun a tag."""
        held, self._held = self._held, ""
        return (held, "") if self._place == "inside" else ("", held)


def split_thoughts(text: str) -> tuple[str, str]:
    """Return the thinking and the answer of a whole text."""
    splitter = ThoughtSplitter()
    thoughts, answer = splitter.feed(text)
    more_thoughts, more_answer = splitter.end()
    return thoughts + more_thoughts, answer + more_answer
