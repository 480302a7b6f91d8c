"""`sanitize(weights)`: the weight plan as code, for checkpoints that come straight from PyTorch.

It goes by the names of the plan alone. Whether a checkpoint has been converted before is seen from one
weight that has another name or another shape since, or that is not in both. Constants, which no checkpoint
holds, come from the module's own file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from torch2mlx.emit import pieces, renames, selection, syntax
from torch2mlx.weights.plan import Step, WeightEntry, WeightPlan

WIDTH = 76  # of a condition
KEY, VALUE = syntax.name("key"), syntax.name("value")
WEIGHTS, RESULT = syntax.name("weights"), syntax.name("sanitized")
ARRAYS = "dict[str, mx.array]"
DOCSTRING = "Weights of PyTorch as this module has them{}."
ELSE = "; its own are left as they are"


def sanitize(plan: WeightPlan, sharded: bool = False) -> str:
    """The method's source, or "" where there is nothing to do or no way to see what was done.

    The latter is so if both checkpoints have the same keys, and every weight that is transposed the same
    shape before and after; and where arrays are computed from several weights, the converter alone does
    that.

    Args:
        plan: The plan.
        sharded: Whether the module's own weights are in several files.
    """
    if any(entry.expression for entry in plan.entries):
        return ""
    constants, entries = _constants(plan)
    if any(set(plan.constants).intersection(entry.sources) for entry in entries):
        return ""
    whole, parted = _divided(entries)
    gone = {source for entry in parted for source in entry.sources}
    gone -= {source for entry in whole for source in entry.sources}
    dropped = {*plan.unused, *plan.aliases, *gone}
    new_names = {source: e.key for e in whole for source in e.sources}
    renaming = renames.renaming(new_names)
    loop = _loop(whole, new_names, dropped, renaming)
    if loop is None and not parted and not constants:
        return ""
    guard = _guard(plan, whole, constants, new_names)
    if guard is None:
        return ""
    if not guard and not parted and renaming is None:
        return _method(
            [ast.Expr(ast.Constant(DOCSTRING.format(""))), _without(dropped, new_names)]
        )
    docstring = DOCSTRING.format(ELSE if guard else "")
    body: list[ast.stmt] = [ast.Expr(ast.Constant(docstring)), *guard]
    if renaming and renaming.table:
        body.append(syntax.assign([renames.NAMES], renaming.table))
    body.append(syntax.assign([RESULT], ast.Dict([], [])))
    body.append(loop or _copy())
    body += pieces.statements(parted)
    if constants:
        body += _own(constants, {entry.key for entry in entries}, sharded)
    body.append(ast.Return(RESULT))
    return _method(body)


def _constants(plan: WeightPlan) -> tuple[set[str], list[WeightEntry]]:
    """The keys of constants, and the entries that are made of a checkpoint's weights."""
    fixed = set(plan.constants)
    entries = [entry for entry in plan.entries if not fixed.issuperset(entry.sources)]
    return {e.key for e in plan.entries} - {e.key for e in entries}, entries


def _divided(
    entries: list[WeightEntry],
) -> tuple[list[WeightEntry], list[WeightEntry]]:
    """The entries that are made key by key, and the others: cut, put together, or made once more."""
    whole: list[WeightEntry] = []
    parted: list[WeightEntry] = []
    taken: set[str] = set()
    for entry in entries:
        if not taken.isdisjoint(entry.sources) or pieces.is_piece(entry):
            parted.append(entry)
        else:
            whole.append(entry)
            taken.update(entry.sources)
    return whole, parted


def _method(body: list[ast.stmt]) -> str:
    weights = ast.arg("weights", ast.parse(ARRAYS, mode="eval").body)
    arguments = ast.arguments([], [ast.arg("self"), weights], None, [], [], None, [])
    returns = ast.parse(ARRAYS, mode="eval").body
    return syntax.text(ast.FunctionDef("sanitize", arguments, body, [], returns))


def _loop(
    entries: list[WeightEntry],
    new_names: dict[str, str],
    dropped: set[str],
    renaming: renames.Renaming | None,
) -> ast.stmt | None:
    """The loop over the checkpoint, or None where it only copies."""
    body: list[ast.stmt] = []
    used = {source: entry for entry in entries for source in entry.sources}
    used = {key: used[key] for key in new_names}
    ranks = {k: len(e.shapes[e.sources.index(k)]) for k, e in used.items()}
    if dropped:
        test = selection.condition(dropped, set(used), {})
        body.append(ast.If(test, [ast.Continue()], []))
    body += _changes(used, ranks)
    adds = any(entry.merge == "sum" for entry in entries)
    new_key: ast.expr = KEY
    if renaming and renaming.before:
        body.append(renaming.before)
    elif renaming and renaming.is_short and not adds:
        new_key = renaming.name
    elif renaming:
        body.append(syntax.assign([KEY], renaming.name))
    if adds:
        known = ast.Subscript(RESULT, KEY)
        total = ast.BinOp(known, ast.Add(), VALUE)
        test = ast.Compare(KEY, [ast.In()], [RESULT])
        body.append(ast.If(test, [syntax.assign([VALUE], total)], []))
    if not body and new_key is KEY:
        return None
    body.append(syntax.assign([ast.Subscript(RESULT, new_key)], VALUE))
    return ast.For(
        ast.Tuple([KEY, VALUE]), syntax.method(WEIGHTS, "items"), body, [], lineno=0
    )


def _without(dropped: set[str], kept: Iterable[str]) -> ast.stmt:
    """All but what is dropped."""
    test = selection.condition(dropped, set(kept), {})
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq):
        test = ast.Compare(test.left, [ast.NotEq()], test.comparators)
    else:
        test = ast.UnaryOp(ast.Not(), test)
    items = syntax.method(WEIGHTS, "items")
    pairs = ast.comprehension(ast.Tuple([KEY, VALUE]), items, [test], 0)
    return ast.Return(ast.DictComp(KEY, VALUE, [pairs]))


def _copy() -> ast.stmt:
    return ast.Expr(syntax.method(RESULT, "update", [WEIGHTS]))


def _own(constants: set[str], others: set[str], sharded: bool) -> list[ast.stmt]:
    """The constants from the file beside the module."""
    one = """own = mx.load(str(Path(__file__).with_name("model.safetensors")))"""
    several = """own = {}
for shard in sorted(Path(__file__).parent.glob("model*.safetensors")):
    own.update(mx.load(str(shard)))
"""
    read = ast.parse(several if sharded else one).body
    items = syntax.method(syntax.name("own"), "items")
    test = selection.condition(constants, others, {})
    pairs = ast.comprehension(ast.Tuple([KEY, VALUE]), items, [test], 0)
    update = syntax.method(RESULT, "update", [ast.DictComp(KEY, VALUE, [pairs])])
    return [*read, ast.Expr(update)]


def _changes(used: dict[str, WeightEntry], ranks: dict[str, int]) -> Iterable[ast.stmt]:
    """What is done to the arrays: one branch for each way of changing them."""
    ways: dict[tuple[Step, ...], set[str]] = {}
    for key, entry in used.items():
        if entry.steps:
            ways.setdefault(tuple(map(_general, entry.steps)), set()).add(key)
    chain: ast.If | None = None
    for steps, keys in reversed(ways.items()):
        test = selection.condition(keys, used.keys() - keys, ranks)
        change = syntax.assign([VALUE], pieces.stepped(VALUE, steps))
        chain = ast.If(test, [change], [chain] if chain else [])
    return [chain] if chain else []


def _general(step: Step) -> Step:
    """A reshape to one long axis, for arrays of any length."""
    if step[0] == "reshape" and sum(size != 1 for size in step[1]) == 1:
        return "reshape", tuple(-1 if size != 1 else 1 for size in step[1])
    return step


def _guard(
    plan: WeightPlan,
    whole: list[WeightEntry],
    constants: set[str],
    new_names: dict[str, str],
) -> list[ast.stmt] | None:
    """The return for a checkpoint that has been converted; [] if it needs none, None if it has none."""
    made = {entry.key for entry in plan.entries}
    lost = [k for k in plan.sources().keys() - set(plan.constants) if k not in made]
    changed = [entry for entry in whole if entry.steps]
    telling = [e for e in changed if e.shapes[0] != e.out_shape]
    dropped = plan.unused.keys() - made
    if lost:
        # The names tell
        test = _absent(min(lost, key=lambda key: (key not in new_names, key)))
    elif telling:
        test = _other_shape(max(telling, key=lambda entry: len(entry.shapes[0])))
    elif constants:
        test = ast.Compare(ast.Constant(min(constants)), [ast.In()], [WEIGHTS])
    elif not changed and all(old == new for old, new in new_names.items()):
        return []
    elif dropped:
        test = _absent(min(dropped))
    else:
        return None
    return [ast.If(test, [ast.Return(WEIGHTS)], [])]


def _absent(key: str) -> ast.expr:
    return ast.Compare(ast.Constant(key), [ast.NotIn()], [WEIGHTS])


def _other_shape(entry: WeightEntry) -> ast.expr:
    """Whether the entry's array has not the shape that it has in PyTorch."""
    source = ast.Subscript(WEIGHTS, ast.Constant(entry.sources[0]))
    found: ast.expr = ast.Attribute(source, "shape")
    test = ast.Compare(found, [ast.NotEq()], [syntax.literal(entry.shapes[0])])
    if len(syntax.text(test)) > WIDTH:
        pairs = zip(entry.shapes[0], entry.out_shape, strict=False)
        axis = next(i for i, (old, new) in enumerate(pairs) if old != new)
        found = ast.Subscript(found, ast.Constant(axis))
        size = ast.Constant(entry.shapes[0][axis])
        test = ast.Compare(found, [ast.NotEq()], [size])
    return test
