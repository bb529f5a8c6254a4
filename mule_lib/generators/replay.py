"""Recorded replies in place of a model: tests, and a data set made again without a key."""

import os
from collections.abc import Sequence
from pathlib import Path

from mule_lib.generators.budget import Budget, Report
from mule_lib.generators.cache import ReplyFile
from mule_lib.generators.complete import Completer, Keep
from mule_lib.generators.requests import Call, GeneratorError


class _Nowhere:
    def __init__(self, name: str, path: Path):
        self.name, self.path = name, path

    def send(self, calls: Sequence[Call], *, budget: Budget, keep: Keep) -> None:
        asked = " ".join(calls[0].messages[-1]["content"].split())
        raise GeneratorError(
            f"{self.path} has no reply of {self.name} for {len(calls)} calls, the first of them "
            f"{asked[:80] + '...' if len(asked) > 80 else asked!r}; record them with that generator first"
        )


class Replay(Completer):
    """A `Generator` that answers from a cache file of another one, under that one's name, and never sends anything.

    `name` picks the generator where the file holds several. Raises GeneratorError for a missing or empty file, a name
    that is not in it, or (by `complete`) a call that was not recorded.
    """

    def __init__(self, path: str | os.PathLike, *, name: str | None = None, report: Report | None = None):
        path = Path(path)
        if not path.is_file():
            raise GeneratorError(f"{path}: no such file of recorded replies")
        cache = ReplyFile(path, read_only=True)
        names = cache.generators()
        if not names:
            raise GeneratorError(f"{path} holds no recorded reply")
        if name is None and len(names) > 1:
            raise GeneratorError(f"{path} holds replies of {', '.join(names)}; name one of them")
        if name is not None and name not in names:
            raise GeneratorError(f"{path} has no replies of {name!r}; it holds those of {', '.join(names)}")
        super().__init__(_Nowhere(name or names[0], path), cache=cache, report=report)

    def describe(self) -> dict:
        """What answers: the recorded generator and the file."""
        return {"generator": self.name, "replay": str(self.cache.path), "replies": len(self.cache)}
