"""Flat keys and nested containers: `{"a.0.b": x}` and `{"a": [{"b": x}]}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(tree: Any) -> dict[str, Any]:
    """The leaves of nested dicts and lists by their paths.

    >>> flatten({"a": [{"b": 1}], "c": 2})
    {'a.0.b': 1, 'c': 2}
    """
    return dict(_leaves(tree, ""))


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        items = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list | tuple):
        items = [(str(i), value) for i, value in enumerate(tree)]
    else:
        yield path, tree
        return
    for key, value in items:
        yield from _leaves(value, f"{path}.{key}" if path else key)


def unflatten(flat: Mapping[str, Any]) -> Any:
    """Nested dicts of flat keys; a level whose keys are 0, 1, ... becomes a list, as MLX has it.

    >>> unflatten({"a.0.b": 1, "c": 2})
    {'a': [{'b': 1}], 'c': 2}

    Raises:
        ValueError: A key is the beginning of another one.
    """
    root: dict[str, Any] = {}
    for key, value in flat.items():
        node = root
        *parents, last = key.split(".")
        for part in parents:
            node = node.setdefault(part, _Node())
            if not isinstance(node, _Node):
                raise ValueError(f"a key of {key!r} has a value of its own")
        if last in node:
            raise ValueError(f"{key!r} has a value and keys below it")
        node[last] = value
    return _listed(root)


class _Node(dict[str, Any]):
    pass


def _listed(node: Any) -> Any:
    values = {
        key: _listed(value) if isinstance(value, _Node) else value
        for key, value in node.items()
    }
    numbers = [str(i) for i in range(len(values))]
    if values and values.keys() == set(numbers):
        return [values[number] for number in numbers]
    return values
