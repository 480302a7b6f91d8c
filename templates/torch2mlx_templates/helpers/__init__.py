"""MLX functions that generated files copy where they use them."""

# ruff: noqa: F401 - the names are this package's interface

from torch2mlx_templates.helpers.attention import masked_attention
from torch2mlx_templates.helpers.conv import grouped_conv3d, grouped_conv_transpose3d
from torch2mlx_templates.helpers.elementwise import (
    copysign,
    fmax,
    fmin,
    fmod,
    hypot,
    integer_power,
    signbit,
    sinc,
    truncated_division,
    xlogy,
)
from torch2mlx_templates.helpers.indexing import (
    along_axis,
    argsort_descending,
    assign,
    diag_embed,
    masked_scatter,
    searchsorted,
)
from torch2mlx_templates.helpers.linalg import (
    cross,
    integer_matmul,
    pinv,
    spectral_norm,
    vector_norm,
)
from torch2mlx_templates.helpers.losses import (
    multi_margin_loss,
    multilabel_margin_loss,
    nll_loss,
    smooth_nll_loss,
)
from torch2mlx_templates.helpers.pooling import (
    adaptive_avg_pool,
    adaptive_max_pool,
    adaptive_max_pool_indices,
    adaptive_windows,
    avg_pool,
    max_pool,
    max_pool_indices,
    sum_pool,
)
from torch2mlx_templates.helpers.recurrent import (
    gru_cell,
    gru_layer,
    lstm_cell,
    lstm_layer,
    rnn_layer,
)
from torch2mlx_templates.helpers.reduction import (
    cummax_indices,
    cummin_indices,
    diff,
    histc,
    kth_smallest,
    lower_median,
    quantile,
)
from torch2mlx_templates.helpers.resample import (
    affine_grid,
    cubic_kernel,
    fold,
    grid_sample,
    inside,
    interpolate_antialiased,
    interpolate_cubic,
    interpolate_linear,
    interpolate_nearest,
    pixel_shuffle,
    pixel_unshuffle,
    pixels,
    resampled_places,
    resampled_sizes,
    unfold,
)
from torch2mlx_templates.helpers.signal import (
    stft,
)
