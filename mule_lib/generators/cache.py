"""Every paid reply on disk, one JSON line each, written whole before anything else is done with it."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from mule_lib.generators.requests import Call, Exchange, GeneratorError

try:
    import fcntl
except ImportError:  # Windows has no flock; one process at a time there
    fcntl = None


class ReplyFile:
    """Replies by key, in a file that only grows and that several processes may share, or in memory (`path=None`).

    A line holds the key, the generator's name, the call, the reply, its tokens and the time (UTC). A last line that a
    kill cut short is cut away; any other line that does not parse raises GeneratorError with file and line.
    """

    def __init__(self, path: str | os.PathLike | None, *, read_only: bool = False):
        self.path = Path(path) if path is not None else None
        self.read_only = read_only
        self._replies: dict[str, Exchange] = {}
        self._spent: dict[str, int] = {}
        self._offset = self._lines = 0
        if self.path is not None:
            if self.path.is_dir():
                raise GeneratorError(f"cache={str(self.path)!r} is a folder; give a file such as replies.jsonl")
            self.refresh()

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> Exchange | None:
        """The reply of a key, or None."""
        return self._replies.get(key)

    def spent(self, generator: str) -> int:
        """Tokens that a generator's replies in this file have cost so far, in all runs."""
        return self._spent.get(generator, 0)

    def generators(self) -> list[str]:
        """Names of the generators whose replies are here."""
        return sorted(self._spent)

    def put(self, generator: str, call: Call, exchange: Exchange) -> None:
        """Keep a reply; on return it survives a kill. Raises GeneratorError when the disk does not take it."""
        row = {
            "key": call.key(generator),
            "generator": generator,
            "call": asdict(call),
            "reply": asdict(exchange),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if self.path is None:
            self._add(row)
            return
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        try:
            with self._locked() as file:
                self._read(file)
                file.seek(0, os.SEEK_END)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
                self._offset += len(line)
        except OSError as error:
            raise GeneratorError(f"{self.path}: a paid reply cannot be written ({error.strerror})") from None
        self._lines += 1
        self._add(row)

    def refresh(self) -> None:
        """Read what other processes have added."""
        if self.path is not None and self.path.exists():
            with self._locked() as file:
                self._read(file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator:
        if self.read_only:
            with open(self.path, "rb") as file:
                yield file
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file closes, also by a kill
            yield file

    def _read(self, file) -> None:
        file.seek(self._offset)
        new = file.read()
        whole = new.rfind(b"\n") + 1
        for line in new[:whole].splitlines():
            self._lines += 1
            try:
                self._add(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise GeneratorError(
                    f"{self.path}, line {self._lines}: no recorded reply; delete that line (it will be paid for again)"
                ) from None
        self._offset += whole
        if whole < len(new) and not self.read_only:
            # Under the lock no process is writing, so this is what a killed one left of its last line.
            file.truncate(self._offset)

    def _add(self, row: dict) -> None:
        exchange = Exchange(**row["reply"])
        if row["key"] not in self._replies:
            self._spent[row["generator"]] = self._spent.get(row["generator"], 0) + exchange.tokens
        self._replies[row["key"]] = exchange
