"""The registry: one static table a kind, what installed packages add to it, and building from names.

Reading a table, or the parameters of an entry of ours, imports neither torch nor the thing named.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal, TypeVar

from robustbench_lite.core import parameters as declared
from robustbench_lite.core.errors import InvalidParameter, RobustError, UnknownName
from robustbench_lite.core.names import Name, is_path, parse_name
from robustbench_lite.core.parameters import Amount, checked, hints_of

Thing = TypeVar("Thing")
KINDS = ("attacks", "peers", "models", "defenses", "data", "threats", "certifiers")
ALWAYS: dict[str, dict[str, object]] = {
    "models": {"reject": Amount, "outputs": str, "units": str, "mean": str, "std": str},
    "defenses": {},
    "data": {"classes": str},
}
HOMES = {"certifiers": "certify", "peers": "attacks"}  # kinds whose package has another name
# What a path is called where it may stand for something.
PATHS = {
    "models": "a name, or a file that ends in .skops, .onnx, .pt, .ubj, .json, .txt; a network's weights are "
    "weights:FILE,network=package.module:function, a folder of transformers hf:FOLDER",
    "data": "a name: csv:FILE,label=COLUMN, npz:FILE, parquet:FILE, webdataset:FILE, masks:FOLDER, or "
    "folder:FOLDER, a sub-folder a class",
}
# Kinds whose names are names of another kind too: a defended model, an attack of another library.
WITHIN = {"models": ("defenses",), "attacks": ("peers",)}


@dataclass(frozen=True)
class Entry:
    """A line of a table: where the thing lives and what a reader needs to choose it.

    Parameters
    ----------
    name : str
    where : str
        `package.module:Name`.
    summary : str
        One line.
    access, norms, paper : str, default ""
        For the lists of what there is.
    first : str, default ""
        The parameter that a value without a key is for, as in `linf:8/255`.
    inner : {"", "one", "many", "chain", "foreign"}, default ""
        What its brackets hold: nothing, one name, any number of them, names each of which sees what the one
        before makes of the data, or one that is no name of ours.
    task : str, default "classification"
        Of a model: what it does; "": whatever the data asks for.

    Examples
    --------
    >>> Entry("mine", "my_package.attacks:Mine", "what it does").where
    'my_package.attacks:Mine'
    """

    name: str
    where: str
    summary: str
    access: str = ""
    norms: str = ""
    paper: str = ""
    first: str = ""
    inner: Literal["", "one", "many", "chain", "foreign"] = ""
    task: str = "classification"


def table_of(kind: str) -> dict[str, Entry]:
    """Our own table of a kind."""
    module = importlib.import_module(f"robustbench_lite.{HOMES.get(kind, kind)}")
    table: dict[str, Entry] = getattr(module, kind.upper())
    return table


@functools.cache
def installed(kind: str) -> tuple[EntryPoint, ...]:
    """What installed packages add to a kind: read once, since every package's files are looked through."""
    return tuple(entry_points(group=f"robustbench_lite.{kind}"))


def entries(kind: str) -> dict[str, Entry]:
    """The table of a kind with what installed packages add to it; they take no name of ours."""
    known = dict(table_of(kind))
    for point in installed(kind):
        inner: Literal["", "one"] = "one" if kind == "defenses" else ""
        known.setdefault(point.name, Entry(point.name, point.value, f"from {point.module}", inner=inner))
    return known


def named(kind: str) -> dict[str, Entry]:
    """All that a name of a kind may mean: its own entries, and those of kinds that make such things too."""
    found: dict[str, Entry] = {}
    for other in (*WITHIN.get(kind, ()), kind):
        found |= entries(other)
    return found


def look_up(kind: str, name: str) -> Entry:
    """The entry of a name; defenses may be named where models are, attacks of others where attacks are.

    Parameters
    ----------
    kind : {"attacks", "peers", "models", "defenses", "data", "threats", "certifiers"}
    name : str
        Without parameters.

    Returns
    -------
    Entry

    Raises
    ------
    UnknownName
        With the nearest ones.
    InvalidParameter
        For what looks like a path, with the words that go before one.

    Examples
    --------
    >>> look_up("threats", "linf").first
    'eps'
    """
    known = named(kind)
    if name not in known:
        if kind in PATHS and is_path(name):
            raise InvalidParameter(kind.removesuffix("s"), name, PATHS[kind])
        raise UnknownName(kind.removesuffix("s"), name, known)
    return known[name]


def load(where: str, kind: str) -> object:
    """The object that `module:Name` stands for."""
    module, colon, name = where.partition(":")
    if not colon or not module or not name:
        raise InvalidParameter(kind, where, "package.module:name")
    here = str(Path.cwd())
    beside = [] if here in sys.path or "" in sys.path else [here]  # a module in the working directory
    sys.path.extend(beside)
    try:
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except RobustError:
        raise
    except (Exception, SystemExit) as error:  # importing runs the module's own code
        said = next(iter(str(error).splitlines()), "")
        told = said if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {said}"
        raise RobustError(f"{kind} {where!r} cannot be imported: {told}") from error
    finally:
        for path in beside:
            sys.path.remove(path)
    return found


def read_name(kind: str, text: str) -> Name:
    """A name of a kind, its brackets read with the parameters that wrappers of the kind declare."""
    known = named(kind)

    def own(head: str) -> list[str]:
        return [] if head not in known or not known[head].inner else list(signature(known[head]) or ())

    return parse_name(text, own)


def given(entry: Entry, name: Name) -> dict[str, object]:
    """The parameters a name gives, the one without a key among them."""
    found: dict[str, object] = dict(name.parameters)
    if name.first is not None:
        if not entry.first or entry.first in found:
            raise InvalidParameter(name.head, name.text, "name or name:key=value,key=value")
        found = {entry.first: name.first, **found}
    if entry.first and not entry.inner and entry.first not in found:
        raise InvalidParameter(name.head, name.text, f"{name.head}:{entry.first.upper()}")
    if name.inner and not entry.inner:
        raise InvalidParameter(name.head, name.text, f"without brackets: {name.head} wraps nothing")
    if (entry.inner == "many" and not name.inner) or (
        entry.inner in ("one", "foreign") and not (name.inner or entry.first)
    ):
        raise InvalidParameter(name.head, name.text, f"{name.head}(NAME{',NAME' * (entry.inner == 'many')})")
    if entry.inner in ("one", "foreign") and len(name.inner) > 1:
        raise InvalidParameter(name.head, name.text, f"{name.head}(NAME): one name in the brackets")
    return found


def build(cls: type[Thing], values: Mapping[str, object]) -> Thing:
    """An instance of a dataclass from parameters, each checked against its field.

    Parameters
    ----------
    cls : type
        The dataclass; the types of its fields say what is allowed.
    values : mapping
        Parameter -> value, as text or as it is; what is left out keeps its default.

    Returns
    -------
    object
        Of type cls.

    Raises
    ------
    UnknownName
        For a parameter that is no field.
    InvalidParameter
        For a value outside its field's type or range.

    Examples
    --------
    >>> from robustbench_lite.core.settings import Search
    >>> build(Search, {"seed": "3"}).seed
    3
    """
    hints = hints_of(cls)
    known = {f.name: hints[f.name] for f in fields(cls) if f.init}  # type: ignore[arg-type]
    return cls(**checked(cls.__name__, values, known))


def arguments(function: Callable[..., object], values: Mapping[str, object], skip: int) -> dict[str, object]:
    """Parameters for a function's arguments after the first `skip`; each checked against its type."""
    hints = hints_of(function)
    arguments_ = list(inspect.signature(function).parameters.values())[skip:]
    name = getattr(function, "__name__", "function")
    found = checked(name, values, {p.name: hints[p.name] for p in arguments_})
    for p in arguments_:
        if p.default is p.empty and p.name not in found:
            raise InvalidParameter(p.name, None, f"given, as in {name}:{p.name}=…")
    return found


def check_name(kind: str, text: str) -> None:
    """Raise what is wrong with a name of ours, as far as can be told without importing what it names."""
    name = read_name(kind, text)
    entry = look_up(kind, name.head)
    for inner in name.inner if entry.inner != "foreign" else ():
        check_name(kind, inner.text)
    values, hints = given(entry, name), signature(entry)
    if hints is not None:
        checked(name.head, values, {**hints, **ALWAYS.get(kind, {})})


def signature(entry: Entry) -> dict[str, object] | None:
    """The parameters of one of our entries with their hints, read from its source; None for others'."""
    module, _, name = entry.where.partition(":")
    if not module.startswith("robustbench_lite."):
        return None
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    hints: dict[str, object] = {}
    for key, annotation in _declared(Path(spec.origin), name):
        try:
            hints[key] = eval(annotation, {**vars(builtins), **vars(declared), "Literal": Literal})
        except NameError:  # a type of the module's own: checked when it is made
            hints[key] = object
    return hints


def _declared(file: Path, name: str) -> list[tuple[str, str]]:
    """The parameters of a class of fields or a function: names and the texts of their annotations."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    top = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    node = top.get(name)
    if node is None:
        return _declared_elsewhere(tree, name)
    if isinstance(node, ast.FunctionDef):
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        plain = [a for a in every if a.arg not in ("data", "train", "options", "domain", "model", "members")]
        return [(a.arg, ast.unparse(a.annotation)) for a in plain if a.annotation is not None]
    found: dict[str, str] = {}
    for base in node.bases:
        plain_base = base.value if isinstance(base, ast.Subscript) else base  # of a generic class
        found |= dict(_declared(file, ast.unparse(plain_base)))
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            text = ast.unparse(line.annotation)
            if not text.startswith("ClassVar"):
                found[line.target.id] = text
    return list(found.items())


def _declared_elsewhere(tree: ast.Module, name: str) -> list[tuple[str, str]]:
    """The same of a class of ours that a module imports."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            ours = (node.module or "").startswith("robustbench_lite.")
            spec = importlib.util.find_spec(node.module or "") if ours else None
            return [] if spec is None or spec.origin is None else _declared(Path(spec.origin), name)
    return []
