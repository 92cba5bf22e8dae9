"""An interpreter of the pickle language that imports nothing and calls nothing but given builders.

What Python's own unpickler looks up as functions and classes stays a name here (`Global`). Where a pickle calls a
name, the builder of that name runs; where there is none, the name is noted in `Limits.asked`, and the file is to be
refused. The opcodes are those of Python's ``pickletools``; those of registered extensions and of out-of-band buffers
are not known.
"""

import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

MAX_STEPS = 3_000_000  # opcodes, over all pickles of a file; the largest published files need about 100,000
MAX_ASKED = 1000


class CheckpointError(ValueError):
    """A file that is no checkpoint, is damaged, fits no known format, or asks for code."""


@dataclass(frozen=True)
class Global:
    """The dotted name of a function or class."""

    name: str


@dataclass(eq=False)
class Inert:
    """What a call of an unknown name would have given."""

    name: object

    def build(self, state) -> None:
        pass


@dataclass
class Limits:
    """What is left to spend on a file of ``size`` bytes, and the names that it asked for and that nobody knows."""

    size: int
    steps: int = MAX_STEPS
    asked: set[str] = field(default_factory=set)

    def __post_init__(self):
        self.bytes = 4 * self.size + 2**20

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise CheckpointError("its pickle is longer than any real one")

    def copy(self, size: int) -> None:
        """Every byte of a file is read once or twice, not a hundred times."""
        self.bytes -= size
        if self.bytes < 0:
            raise CheckpointError("it claims far more than it holds")


class Machine:
    """Reads one pickle in ``data`` from ``at`` on; afterwards ``at`` is behind it.

    Parameters
    ----------
    builders : mapping of str to callable
        What runs where a name is called; its arguments are plain data, made by this machine or by other builders.
    inert : collection of str
        Names that may be mentioned but not called.
    find : callable, optional
        Gives what a persistent id stands for.
    """

    def __init__(
        self,
        data: bytes,
        at: int,
        builders: Mapping[str, Callable],
        inert: Collection[str],
        limits: Limits,
        find: Callable | None = None,
    ):
        self.data, self.at, self.limits = data, at, limits
        self.builders, self.inert, self.find = builders, inert, find
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def run(self):
        """The value that the pickle describes; CheckpointError if it is none, or is too long."""
        while True:
            self.limits.spend(1)
            code = self.take(1)
            if code == b".":
                return self.pop()
            if code not in STEPS:
                raise CheckpointError(f"it is no pickle, or damaged: unknown code {code!r} at byte {self.at - 1}")
            STEPS[code](self)

    def take(self, size: int) -> bytes:
        if size < 0 or size > len(self.data) - self.at:
            raise CheckpointError(f"it ends early: {size} bytes were expected at byte {self.at} of {len(self.data)}")
        self.limits.copy(size)
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form: str):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 10_000)
        if end < 0:
            raise CheckpointError("it is no pickle, or ends early: a line does not end")
        text = self.take(end - self.at).decode("utf-8", "replace")
        self.at += 1
        return text

    def text(self, form: str, encoding: str = "utf-8") -> str:
        return self.take(self.number(form)).decode(encoding, "replace")

    def push(self, value) -> None:
        self.stack.append(value)

    def top(self):
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise CheckpointError("it is no pickle, or damaged: a value is missing")
        return self.stack[-1]

    def pop(self):
        value = self.top()
        self.stack.pop()
        return value

    def pop_marked(self) -> list:
        """All values since the last mark."""
        if not self.marks:
            raise CheckpointError("it is no pickle, or damaged: a mark is missing")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def pop_last(self, count: int) -> tuple:
        return tuple(reversed([self.pop() for _ in range(count)]))

    def whole_number(self, size: int) -> None:
        if not 0 <= size <= 16:
            raise CheckpointError(f"a whole number of {size} bytes")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def written_number(self, kind: type) -> None:
        line = self.line().rstrip("L")
        try:
            value = kind(line) if len(line) <= 40 else None
        except ValueError:
            value = None
        if value is None:
            raise CheckpointError(f"{line[:40]!r} is no number")
        self.push(bool(value) if kind is int and line in ("00", "01") else value)

    def index(self) -> int:
        self.written_number(int)
        return self.pop()

    def remember(self, index: int) -> None:
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise CheckpointError("it is no pickle, or damaged: it refers to something that is not there")
        self.push(self.memo[index])

    def append(self, values: list) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise CheckpointError("it is no pickle, or damaged: no list to append to")
        target.extend(map(self.hashable, values) if isinstance(target, Set) else values)

    def push_dict(self) -> None:
        """A dict of all keys and values since the last mark."""
        values = self.pop_marked()
        self.push({})
        self.set_items(values)

    def set_items(self, values: list) -> None:
        target = self.top()
        if isinstance(target, Inert):
            return
        if not isinstance(target, dict) or len(values) % 2:
            raise CheckpointError("it is no pickle, or damaged: no dict to fill")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[self.hashable(key)] = value

    def hashable(self, key):
        """Keys are plain values, so that nothing is spent on hashing nested ones."""
        if not isinstance(key, str | bytes | int | float | None) or (isinstance(key, int) and abs(key) >= 2**63):
            raise CheckpointError(f"a {type(key).__name__} is used as a key")
        return key

    def mention(self, module, name) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise CheckpointError("it is no pickle, or damaged: a name is no text")
        found = Global(f"{module}.{name}")
        if found.name not in self.builders and found.name not in self.inert and len(self.limits.asked) < MAX_ASKED:
            self.limits.asked.add(found.name)
        self.push(found)

    def call(self, function, arguments) -> None:
        if not isinstance(function, Global):
            raise CheckpointError(f"it calls a {type(function).__name__}")
        if not isinstance(arguments, tuple):
            raise CheckpointError(f"it calls {function.name} in an unknown way")
        builder = self.builders.get(function.name)
        if builder is None:
            self.limits.asked.add(function.name)
            return self.push(Inert(function.name))
        self.limits.spend(sum(len(a) for a in arguments if isinstance(a, list | tuple | dict | str)))
        try:
            self.push(builder(*arguments))
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"it calls {function.name} in an unknown way ({error})") from error

    def call_with_keywords(self) -> None:
        function, arguments, keywords = self.pop_last(3)
        if keywords != {}:
            raise CheckpointError("it calls a class with keywords")
        self.call(function, arguments)

    def call_marked(self) -> None:
        values = self.pop_marked()
        self.call(values[0] if values else None, tuple(values[1:]))

    def call_written(self) -> None:
        self.mention(self.line(), self.line())
        function = self.pop()
        self.call(function, tuple(self.pop_marked()))

    def build(self) -> None:
        state = self.pop()
        target = self.top()
        if hasattr(target, "build"):
            target.build(state)
        elif not isinstance(target, dict):  # attributes of an OrderedDict, such as _metadata, are not needed
            raise CheckpointError(f"it changes a {type(target).__name__}")

    def find_persistent(self, reference) -> None:
        if self.find is None:
            raise CheckpointError("it refers to something outside of the file")
        self.push(self.find(reference))

    def expect_protocol(self) -> None:
        protocol = self.number("<B")
        if protocol > 5:
            raise CheckpointError(f"it is no pickle, or damaged: protocol {protocol}")


class Set(list):
    """A set, whose order and uniqueness nobody needs here."""


STEPS: dict[bytes, Callable[[Machine], object]] = {
    b"\x80": Machine.expect_protocol,
    b"\x95": lambda m: m.take(8),  # the length of a frame
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"0": lambda m: m.pop(),
    b"1": lambda m: m.pop_marked(),
    b"2": lambda m: m.push(m.top()),
    # plain values
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"J": lambda m: m.push(m.number("<i")),
    b"G": lambda m: m.push(m.number(">d")),
    b"\x8a": lambda m: m.whole_number(m.number("<B")),
    b"\x8b": lambda m: m.whole_number(m.number("<i")),
    b"I": lambda m: m.written_number(int),
    b"L": lambda m: m.written_number(int),
    b"F": lambda m: m.written_number(float),
    # text and bytes
    b"\x8c": lambda m: m.push(m.text("<B")),
    b"X": lambda m: m.push(m.text("<I")),
    b"\x8d": lambda m: m.push(m.text("<Q")),
    b"U": lambda m: m.push(m.text("<B", "latin-1")),
    b"T": lambda m: m.push(m.text("<i", "latin-1")),
    b"V": lambda m: m.push(m.line()),
    b"S": lambda m: m.push(m.line().strip("'\"")),
    b"C": lambda m: m.push(m.take(m.number("<B"))),
    b"B": lambda m: m.push(m.take(m.number("<I"))),
    b"\x8e": lambda m: m.push(m.take(m.number("<Q"))),
    b"\x96": lambda m: m.push(m.take(m.number("<Q"))),
    # containers
    b")": lambda m: m.push(()),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b"\x8f": lambda m: m.push(Set()),
    b"t": lambda m: m.push(tuple(m.pop_marked())),
    b"\x85": lambda m: m.push(m.pop_last(1)),
    b"\x86": lambda m: m.push(m.pop_last(2)),
    b"\x87": lambda m: m.push(m.pop_last(3)),
    b"l": lambda m: m.push(m.pop_marked()),
    b"d": Machine.push_dict,
    b"\x91": lambda m: m.push(tuple(m.pop_marked())),
    b"a": lambda m: m.append([m.pop()]),
    b"e": lambda m: m.append(m.pop_marked()),
    b"\x90": lambda m: m.append(m.pop_marked()),
    b"s": lambda m: m.set_items(list(m.pop_last(2))),
    b"u": lambda m: m.set_items(m.pop_marked()),
    # the memo
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"q": lambda m: m.remember(m.number("<B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"p": lambda m: m.remember(m.index()),
    b"h": lambda m: m.recall(m.number("<B")),
    b"j": lambda m: m.recall(m.number("<I")),
    b"g": lambda m: m.recall(m.index()),
    # names, calls and states
    b"c": lambda m: m.mention(m.line(), m.line()),
    b"\x93": lambda m: m.mention(*m.pop_last(2)),
    b"R": lambda m: m.call(*m.pop_last(2)),
    b"\x81": lambda m: m.call(*m.pop_last(2)),
    b"\x92": Machine.call_with_keywords,
    b"i": Machine.call_written,
    b"o": Machine.call_marked,
    b"b": Machine.build,
    b"Q": lambda m: m.find_persistent(m.pop()),
    b"P": lambda m: m.find_persistent(m.line()),
}
