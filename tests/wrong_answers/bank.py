"""How the answers of a chapter are collected: `WRONG` and `RIGHT` by two decorators."""

from collections.abc import Callable


class Bank:
    """The wrong and the right answers of one chapter."""

    def __init__(self) -> None:
        self.WRONG: list[tuple[str, Callable, str | None]] = []
        self.RIGHT: list[tuple[str, Callable]] = []

    def wrong(self, exercise: str, text: str | None) -> Callable:
        """Collect a wrong answer; `text` has to be in its message, None: nothing may be named."""

        def collect(answer: Callable) -> Callable:
            self.WRONG.append((exercise, answer, text))
            return answer

        return collect

    def right(self, exercise: str) -> Callable:
        """Collect a right answer."""

        def collect(answer: Callable) -> Callable:
            self.RIGHT.append((exercise, answer))
            return answer

        return collect
