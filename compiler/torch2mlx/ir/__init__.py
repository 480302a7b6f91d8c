"""The lowered graph's vocabulary: what its nodes call and what their `meta` holds.

A lowered graph is a `torch.fx.Graph` whose targets are real `mlx` callables, so that it runs:

- `placeholder`: one array input of the model;
- `get_attr`: a parameter or buffer, `meta["weight"]` is its `Weight`;
- `call_function`: an `mx.*` or `nn.*` function, an operator, a helper or an intrinsic;
- `call_module`: a layer, `meta["layer"]` is its `Layer`, the target its path in the model.

Every node has `meta["hint"]`, the MLX value (lazy, never evaluated) that the node has for the example
inputs, and `meta["origin"]`, the captured node it comes from. A node that stands for the whole result of
its origin also has `meta["val"]`, the origin's fake tensor, whose sizes may be symbolic.
"""
