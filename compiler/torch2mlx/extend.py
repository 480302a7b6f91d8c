"""What a user needs to map an operator or a layer of their own.

from torch2mlx.extend import mx, register_op

@register_op(torch.ops.mylib.swish.default)
def swish(x):
    return x * mx.sigmoid(x)
"""

from torch2mlx.lower.facade import Decline, Refuse, mx, nn
from torch2mlx.lower.registry import layer as register_layer
from torch2mlx.lower.registry import lowers as register_op

__all__ = ["Decline", "Refuse", "mx", "nn", "register_layer", "register_op"]
