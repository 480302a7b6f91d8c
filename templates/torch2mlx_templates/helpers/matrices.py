"""Matrices that are put together from parts, and rows taken in pairs."""

from __future__ import annotations

import itertools

import mlx.core as mx

from torch2mlx_templates.helpers.linalg import vector_norm


def block_diag(matrices: list[mx.array]) -> mx.array:
    """Matrices along the diagonal of one, with 0 elsewhere."""
    width = sum(matrix.shape[1] for matrix in matrices)
    rows, start = [], 0
    for matrix in matrices:
        end = start + matrix.shape[1]
        rows.append(mx.pad(matrix, [(0, 0), (start, width - end)]))
        start = end
    return mx.concatenate(rows, axis=0)


def combinations(x: mx.array, r: int, with_replacement: bool = False) -> mx.array:
    """All choices of r elements of (n,), in order: (number of choices, r)."""
    choose = itertools.combinations
    if with_replacement:
        choose = itertools.combinations_with_replacement
    choices = list(choose(range(x.shape[0]), r))
    return x[mx.array(choices, mx.int32).reshape(len(choices), r)]


def pdist(x: mx.array, p: float) -> mx.array:
    """The distances of all pairs of rows: (n, d) -> (n * (n - 1) / 2,)."""
    rows = combinations(mx.arange(x.shape[0]), 2)
    return vector_norm(x[rows[:, 0]] - x[rows[:, 1]], p, -1)
