# SPDX-License-Identifier: Apache-2.0
"""How far an export has come, kept in a file, so that the next one goes on from there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from tempfile import mkstemp
from typing import Any, Final

from agent_kernel_otel.audit.files.entries import Position
from agent_kernel_otel.audit.files.parsing import LARGEST
from agent_kernel_otel.export.claim import Claim, NoLockError
from agent_kernel_otel.export.summary import Counts

_KIND: Final = "agent-kernel-otel export checkpoint"
_VERSION: Final = 1
_BEGINNING: Final = json.dumps({"kind": _KIND}, indent=1).removesuffix("\n}").encode()
_LARGEST_NUMBER: Final = 2**63
_LONGEST_PIECE: Final = 2 * LARGEST
"""No position remembers more bytes than those of a record and of what parts it from the next."""
_OWN_DIRECTORY: Final = "agent-kernel-otel/export"
_REMEDY: Final = "begin anew with --restart, or give another --checkpoint FILE"


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message says why, and what to do about it."""


@dataclass
class Checkpoint:
    """How far an export has come.

    Attributes:
        path: Where it is kept; ``None`` for nowhere.
        is_kept: Whether it stays when the export is finished, so that the next one exports what
            is new since.
        is_written: Whether this run may write it.
        destination: Where the export goes.
        filters: What it leaves out.
        settings: What else must be as it was, by what to call it. It can be secret, and only salted
            hashes of it are kept.
        now: What ages in the filters are counted from, in nanoseconds since the epoch.
        positions: By the absolute path of each file, up to where all is confirmed.
        output: Up to where the file is confirmed that is written, if one is.
        counts: What became of the records of this export so far, in earlier runs too.
        is_resumed: Whether an earlier run has left it.
        is_finished: Whether that run came to its end.
    """

    path: Path | None
    is_kept: bool
    is_written: bool
    destination: str
    filters: Mapping[str, Any]
    settings: Mapping[str, str]
    now: int
    positions: dict[str, Position] = field(default_factory=dict)
    output: Position | None = None
    counts: Counts = field(default_factory=Counts)
    is_resumed: bool = False
    is_finished: bool = False
    _salt: str = field(default_factory=lambda: token_hex(16), repr=False)
    _claim: Claim | None = field(default=None, repr=False)

    @property
    def goes_on(self) -> bool:
        """Whether an earlier run was interrupted, and this one does the rest."""
        return self.is_resumed and not self.is_finished

    def load(self, *, restart: bool) -> None:
        """Take over what an earlier run has left, if one has, and keep others from using it.

        Args:
            restart: Not to, but to see to it that no other file is overwritten.

        Raises:
            CheckpointError: It cannot be read or written, is none, is one of another export, or
                another process uses it.
        """
        if self.path is None:
            return
        _read(self.path, restart=restart)  # a file that is no checkpoint gets no lock beside it
        self._take(self.path)
        stored = _read(self.path, restart=restart)
        if stored is None:
            return
        destination, filters = stored["destination"], stored["filters"]
        if destination != self.destination:
            raise CheckpointError(
                f"{self.path}: is of an export to {destination}, and this one goes to "
                f"{self.destination}; {_REMEDY}"
            )
        if filters != self.filters:
            raise CheckpointError(
                f"{self.path}: is of an export with other filters: {_options(filters)}, and this "
                f"one has {_options(self.filters)}; {_REMEDY}"
            )
        others = _differences(stored["settings"], self._hashed(stored["salt"]))
        if others:
            raise CheckpointError(
                f"{self.path}: the settings differ from those of the run that has left it: "
                f"{'; '.join(others)}; set them as they were, or {_REMEDY}"
            )
        self._salt = stored["salt"]
        self.positions, self.is_finished = dict(stored["positions"]), stored["is_finished"]
        self.output, self.is_resumed = stored["output"], True
        if not self.is_finished:
            self.counts, self.now = Counts(**stored["counts"]), stored["now"]

    def _take(self, path: Path) -> None:
        if not self.is_written:
            return
        if not self.is_kept:
            with suppress(OSError):  # what is wrong shows in the next step
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._claim = Claim(path)
        try:
            if self._claim.take():
                return
        except NoLockError as error:
            raise CheckpointError(
                f"{error}: is in the way: the checkpoint's lock would have that name; name another "
                "checkpoint, or remove it"
            ) from error
        except OSError as error:
            raise self._unwritable(error) from error
        raise CheckpointError(
            f"{path}: another export uses it at this moment; wait until that has ended"
        )

    def release(self) -> None:
        """Let others use it."""
        if self._claim is not None:
            self._claim.release()

    def prepare(self) -> None:
        """See to it that it can be written, before that matters.

        Raises:
            CheckpointError: It cannot.
        """
        if self.path is None or not self.is_written:
            return
        try:
            self._write_beside(self.path).unlink()
        except OSError as error:
            raise self._unwritable(error) from error

    def save(self) -> None:
        """Write it, all or nothing.

        Raises:
            CheckpointError: It cannot be written.
        """
        if self.path is None or not self.is_written:
            return
        try:
            beside = self._write_beside(self.path)
            try:
                beside.replace(self.path)
            except OSError:
                beside.unlink()
                raise
        except OSError as error:
            raise self._unwritable(error) from error

    def finish(self) -> None:
        """The export has come to its end: keep the checkpoint for the next one, or remove it.

        Raises:
            CheckpointError: It cannot be written.
        """
        self.is_finished = True
        if self.is_kept:
            self.save()
        elif self.path is not None and self.is_written:
            with suppress(OSError):  # all that it could do is to have nothing sent again
                self.path.unlink()

    def _write_beside(self, path: Path) -> Path:
        """Write it into a file of another name, from where it can be moved in one step."""
        content = {
            "kind": _KIND,
            "version": _VERSION,
            "destination": self.destination,
            "filters": self.filters,
            "salt": self._salt,
            "settings": self._hashed(self._salt),
            "now": self.now,
            "is_finished": self.is_finished,
            "counts": asdict(self.counts),
            "output": self.output and dict(self.output),
            "positions": {name: dict(position) for name, position in self.positions.items()},
        }
        # A name that nobody has. It holds ids that somebody filtered by: only its owner may read it.
        descriptor, name = mkstemp(".tmp", f".{path.name}.", path.parent)
        beside = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(content, indent=1).encode())
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave an empty one in its place
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
        return beside

    def _hashed(self, salt: str) -> dict[str, str]:
        return {
            name: sha256(f"{salt} {name} {value}".encode(errors="backslashreplace")).hexdigest()
            for name, value in self.settings.items()
        }

    def _unwritable(self, error: OSError) -> CheckpointError:
        remedy = "name another file" if self.is_kept else "set XDG_STATE_HOME, or --checkpoint FILE"
        return CheckpointError(
            f"{self.path}: the checkpoint cannot be written: {error.strerror}; {remedy}"
        )


def automatic_path(
    paths: Sequence[str],
    destination: str,
    filters: Mapping[str, Any],
    environ: Mapping[str, str],
) -> Path:
    """Where the checkpoint of an export is that nobody named one for.

    Args:
        paths: The absolute paths of its files.
        destination: Where it goes.
        filters: What it leaves out.
        environ: Where to look up ``XDG_STATE_HOME``.
    """
    same = json.dumps([list(paths), destination, dict(filters)]).encode()
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # as its specification has it
        state = Path("~/.local/state").expanduser()
    return state / _OWN_DIRECTORY / f"{sha256(same).hexdigest()[:24]}.json"


def _read(path: Path, *, restart: bool) -> Mapping[str, Any] | None:
    """What is kept there, in its right form; ``None`` if nothing is, or it is not to be used."""
    try:
        # A device or a directory must never be replaced by a checkpoint.
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: is no file that a checkpoint can be kept in")
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):  # the latter shows when it is written
        return None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; {_REMEDY}") from error
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        content = None
    is_ours = isinstance(content, dict) and content.get("kind") == _KIND
    # What a power cut can leave of one: its beginning, nothing, or zeros.
    if not is_ours and not raw.startswith(_BEGINNING) and raw.strip(b"\0"):
        raise CheckpointError(
            f"{path}: is no checkpoint of this command, and is left as it is; remove it, or give "
            "another --checkpoint FILE"
        )
    if restart:
        return None
    if is_ours and content.get("version") != _VERSION:
        raise CheckpointError(
            f"{path}: was written by another version of agent-kernel-otel; {_REMEDY}"
        )
    if not is_ours or not _is_sound(content):
        raise CheckpointError(f"{path}: is damaged; {_REMEDY}")
    return dict(content)


def _is_sound(content: Mapping[str, Any]) -> bool:
    """Whether everything in it is what it was when it was written."""
    counts, positions = content.get("counts"), content.get("positions")
    output = content.get("output", {})
    return (
        isinstance(content.get("destination"), str)
        and isinstance(content.get("filters"), dict)
        and isinstance(content.get("salt"), str)
        and isinstance(content.get("settings"), dict)
        and isinstance(content.get("is_finished"), bool)
        and _is_number(content.get("now"))
        and isinstance(counts, dict)
        and counts.keys() == {each.name for each in fields(Counts)}
        and all(map(_is_number, counts.values()))
        and (output is None or _is_end(output))
        and isinstance(positions, dict)
        and all(map(_is_position, positions.values()))
    )


def _is_position(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    length = value.get("length", 0)
    return (
        all(isinstance(each, str) or _is_number(each) for each in value.values())
        and type(length) is int
        and length <= _LONGEST_PIECE
    )


def _is_end(value: object) -> bool:
    return isinstance(value, dict) and _is_number(value.get("size")) and len(value) == 2


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST_NUMBER


def _differences(some: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    names = sorted({*some, *others})
    return [name for name in names if some.get(name) != others.get(name)]


def _options(filters: Mapping[str, Any]) -> str:
    """Filters as they were typed, without the ids of people."""
    words = []
    for option, value in filters.items():
        if value is True or option == "--principal":
            words.append(option)
        else:
            words += [
                f"{option} {each}" for each in (value if isinstance(value, list) else [value])
            ]
    return " ".join(words) or "no filters"
