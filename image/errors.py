"""The one exception the image code raises for the person at the keyboard: what failed, and what to do about it."""


class ImageError(Exception):
    """Something the user has to know about. Its text is complete: no traceback is needed to act on it."""

    def __init__(self, failed: str, todo: str = "", detail: str = "") -> None:
        self.failed = failed
        self.todo = todo
        self.detail = detail
        super().__init__("\n".join(part for part in (failed, detail, todo and f"What to do: {todo}") if part))
