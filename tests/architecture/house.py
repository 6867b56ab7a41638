"""Counts, over the syntax trees of a checkout, what the house should have once and what it should have little of.

`python -m tests.architecture.house [FOLDER ...]` prints one column a folder; `make house` compares with an earlier one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

SERVICES = {
    "accounts",
    "console",
    "evaluator",
    "event_gateway",
    "inference_proxy",
    "ingest",
    "labeling",
    "model_server",
    "rag_indexer",
    "registry",
    "serving_agent",
    "trainer",
}
"""Of all times: a checkout may have fewer."""

BASE_FACTS = {"chat_template", "context_length", "stop_tokens", "vocab_size", "bos_token"}
RENEWING = {"renew", "still_ours", "hold", "_held"}
QUERIES = {
    "add", "add_once", "count_documents", "delete_many", "delete_one", "find", "find_one", "find_one_and_update",
    "insert_one", "replace_one", "save", "update", "update_many", "update_one",
}  # fmt: skip
Found = Iterator[str]


@dataclass(frozen=True)
class Module:
    """One file of Python.

    Attributes:
        path: relative to the checkout.
        tree: its syntax tree.
    """

    path: Path
    tree: ast.Module

    @property
    def service(self) -> str:
        """The service it belongs to; empty for what is shared."""
        return self.path.parts[1] if self.path.parts[0] == "services" else ""

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method, nested ones too."""
        return [one for one in ast.walk(self.tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]

    @cached_property
    def classes(self) -> list[ast.ClassDef]:
        """Every class."""
        return [one for one in ast.walk(self.tree) if isinstance(one, ast.ClassDef)]

    def at(self, node: ast.expr | ast.stmt) -> str:
        """Where a node stands."""
        return f"{self.path}:{node.lineno}"


@dataclass(frozen=True)
class House:
    """The sources of a checkout, tests excepted."""

    modules: list[Module]

    @classmethod
    def of(cls, root: Path) -> House:
        """Read `schemas`, `libs` and `services`; the kit for tests is none of them."""
        paths = [
            *root.glob("schemas/src/**/*.py"),
            *root.glob("libs/*/src/**/*.py"),
            *root.glob("services/*/src/**/*.py"),
        ]
        kept = (path for path in sorted(paths) if "testkit" not in path.parts)
        return cls([Module(path.relative_to(root), ast.parse(path.read_text())) for path in kept])

    @property
    def of_services(self) -> list[Module]:
        """The services' own."""
        return [module for module in self.modules if module.service]


def called(node: ast.AST) -> Iterator[str]:
    """Last names of the functions called below a node."""
    for one in ast.walk(node):
        if isinstance(one, ast.Call):
            yield one.func.attr if isinstance(one.func, ast.Attribute) else "".join(chain(one.func)[-1:])


def chain(node: ast.expr) -> list[str]:
    """`a.b.c` as its names; empty where it does not begin with one."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [*reversed([*names, node.id])] if isinstance(node, ast.Name) else []


def leases(house: House) -> Found:
    """Modules that set the end of a lease by the database's clock."""
    for module in house.modules:
        ends = (
            key
            for one in ast.walk(module.tree)
            if isinstance(one, ast.Dict)
            for key, value in zip(one.keys, one.values, strict=True)
            if key is not None
            and ast.unparse(key).rstrip("'").endswith("until_ms")
            and any(clock in ast.unparse(value) for clock in ("SERVER_MS", "in_seconds"))
        )
        yield from (module.at(key) for key in list(ends)[:1])


def renewals(house: House) -> Found:
    """Functions that renew a lease in a loop beside the work."""
    for module in house.modules:
        for function in module.functions:
            own = [one for one in function.body if not isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            loops = [one for part in own for one in ast.walk(part) if isinstance(one, ast.While)]
            if any(RENEWING & set(called(loop)) and {"sleep", "wait"} & set(called(loop)) for loop in loops):
                yield module.at(function)


def workers(house: House) -> Found:
    """Classes that claim work in a loop of their own, be it by a method of theirs; what claims to delete is a sweep."""
    for module in house.modules:
        for one in module.classes:
            methods = {part.name: part for part in one.body if isinstance(part, ast.AsyncFunctionDef)}
            runs = [methods["run"]] if "run" in methods else []
            loops = [loop for run in runs for loop in ast.walk(run) if isinstance(loop, ast.While)]
            names = {name for loop in loops for name in called(loop)}
            parts = [set(called(methods[own])) for own in names & methods.keys()]
            names |= {name for part in parts if not any(one.startswith("delete") for one in part) for name in part}
            if any(name.lstrip("_").startswith("claim") for name in names):
                yield module.at(one)


def limiters(house: House) -> Found:
    """Context managers that count who is in, by tenant, and refuse the next."""
    for module in house.modules:
        for function in module.functions:
            managed = any(chain(one)[-1:] == ["contextmanager"] for one in function.decorator_list)
            takes = {argument.arg for argument in function.args.args}
            if managed and "tenant_id" in takes and "RateLimited" in set(called(function)):
                yield module.at(function)


def pagings(house: House) -> Found:
    """Functions that cut a page out of what they sort or hold themselves."""
    for module in house.modules:
        for function in module.functions:
            takes = {argument.arg for argument in [*function.args.args, *function.args.kwonlyargs]}
            cuts = {"limit", "sort"} & set(called(function)) or any(
                isinstance(one, ast.Slice) and "limit" in ast.unparse(one) for one in ast.walk(function)
            )
            if {"limit", "after"} <= takes and cuts:
                yield module.at(function)


def envelopes(house: House) -> Found:
    """Places that make an event's envelope."""
    for module in house.modules:
        for one in ast.walk(module.tree):
            if isinstance(one, ast.Call) and chain(one.func) == ["Envelope"]:
                yield module.at(one)


def base_readers(house: House) -> Found:
    """Modules that know what stands in `base.json`: as a class, or by its keys, in brackets or given to a method."""
    for module in house.modules:
        keys = {
            part.value
            for one in ast.walk(module.tree)
            for part in (
                [one.slice]
                if isinstance(one, ast.Subscript)
                else one.args
                if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute)
                else []
            )
            if isinstance(part, ast.Constant)
        }
        fields = [
            {
                part.target.id
                for part in one.body
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
            }
            for one in module.classes
        ]
        if BASE_FACTS & keys or any(len(BASE_FACTS & names) > 2 for names in fields):
            yield str(module.path)


def reach_throughs(house: House) -> Found:
    """Uses of what lies inside a store from outside of it."""
    inside: dict[str, set[str]] = {}
    for module in house.of_services:
        if module.path.name == "store.py" or "store" in module.path.parts:
            for one in ast.walk(module.tree):
                if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store) and chain(one)[:1] == ["self"]:
                    inside.setdefault(module.service, set()).add(one.attr)
    for module in house.of_services:
        public = {name for name in inside.get(module.service, set()) if not name.startswith("_")}
        for one in ast.walk(module.tree):
            if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute):
                names = chain(one.func)
                if len(names) > 3 and public & set(names[2:-1]):
                    yield module.at(one)


def queries_in_routes(house: House) -> Found:
    """Queries and changes of documents that a route makes itself."""
    for module in house.of_services:
        if module.path.name == "api.py" or "api" in module.path.parts:
            for one in ast.walk(module.tree):
                if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr in QUERIES:
                    parts = [*one.args, *(keyword.value for keyword in one.keywords)]
                    if any(isinstance(part, ast.Dict | ast.Lambda) for part in parts):
                        yield module.at(one)


def lists_of_services(house: House) -> Found:
    """Literals that name many services; who reads a topic is no list of services, and a test holds it to the code."""
    for module in house.modules:
        if module.path.parts[-2:] == ("schemas", "topics.py"):
            continue
        for one in ast.walk(module.tree):
            parts = one.keys if isinstance(one, ast.Dict) else getattr(one, "elts", [])
            if len({part.value for part in parts if isinstance(part, ast.Constant)} & SERVICES) > 5:
                yield module.at(one)
            elif isinstance(one, ast.DictComp | ast.GeneratorExp | ast.ListComp):
                first = [call.args[0] for call in ast.walk(one) if isinstance(call, ast.Call) and call.args]
                if len({part.value for part in first if isinstance(part, ast.Constant)} & SERVICES) > 5:
                    yield module.at(one)


def untyped(house: House) -> Found:
    """Uses of `Any`, of `object` as a type, and casts."""
    for module in house.modules:
        for one in ast.walk(module.tree):
            named = isinstance(one, ast.Name) and one.id in ("Any", "object") and isinstance(one.ctx, ast.Load)
            if isinstance(one, ast.expr) and (named or (isinstance(one, ast.Call) and chain(one.func) == ["cast"])):
                yield module.at(one)


ROWS: dict[str, Callable[[House], Found]] = {
    "leases": leases,
    "renewals": renewals,
    "workers": workers,
    "limiters by tenant": limiters,
    "pagings": pagings,
    "envelope builders": envelopes,
    "readers of base.json": base_readers,
    "reach-throughs into stores": reach_throughs,
    "queries or writes in routes": queries_in_routes,
    "lists of services": lists_of_services,
    "Any, object, cast": untyped,
}


def main() -> None:
    """Print the table; with `-v` the places too."""
    arguments = [one for one in sys.argv[1:] if one != "-v"] or ["."]
    houses = [House.of(Path(one)) for one in arguments]
    print(f"{'':32}" + "".join(f"{Path(one).resolve().name[:14]:>16}" for one in arguments))
    for name, count in ROWS.items():
        found = [list(count(house)) for house in houses]
        print(f"{name:32}" + "".join(f"{len(one):>16}" for one in found))
        if "-v" in sys.argv:
            print("".join(f"    {place}\n" for place in found[-1]), end="")
    lines = [
        sum(len((Path(root) / module.path).read_text().splitlines()) for module in house.modules)
        for root, house in zip(arguments, houses, strict=True)
    ]
    print(f"{'lines of schemas, libs, services':32}" + "".join(f"{one:>16,}" for one in lines))


if __name__ == "__main__":
    main()
