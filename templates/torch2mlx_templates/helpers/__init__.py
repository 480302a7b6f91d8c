"""MLX functions that generated files copy where they use them."""

# ruff: noqa: F401 - the names are this package's interface

from torch2mlx_templates.helpers.activation import swiglu
from torch2mlx_templates.helpers.attention import (
    masked_attention,
    rotate_halves,
    rotate_pairs,
)
from torch2mlx_templates.helpers.bessel import (
    airy_ai,
    bessel_i,
    bessel_j,
    bessel_k,
    bessel_y,
    scaled_bessel_i,
    scaled_bessel_k,
    spherical_bessel_j0,
)
from torch2mlx_templates.helpers.calculus import gradient
from torch2mlx_templates.helpers.conv import grouped_conv3d, grouped_conv_transpose3d
from torch2mlx_templates.helpers.dynamic import (
    argwhere,
    argwhere_static,
    bincount,
    masked_select,
    nonzero,
    positions,
    repeat_interleave,
    repeated,
    split_at,
    unique,
    unique_consecutive,
    unravel,
)
from torch2mlx_templates.helpers.elementwise import (
    copysign,
    floor_divide,
    fmax,
    fmin,
    fmod,
    frexp,
    gcd,
    hypot,
    integer_power,
    lcm,
    nextafter,
    signbit,
    sinc,
    truncated_division,
    xlogy,
)
from torch2mlx_templates.helpers.embedding import (
    bag_maxima,
    bag_means,
    bag_of_each,
    bag_sums,
    renormalised,
)
from torch2mlx_templates.helpers.factorisation import (
    complete_qr,
    householder_product,
    lu_factors,
    lu_solve,
    multiply_by_q,
    row_order,
)
from torch2mlx_templates.helpers.gamma import (
    digamma,
    gammainc,
    gammaincc,
    lgamma,
    polygamma,
    zeta,
)
from torch2mlx_templates.helpers.histogram import bin_edges, histogram
from torch2mlx_templates.helpers.indexing import (
    along_axis,
    argsort_descending,
    assign,
    diag_embed,
    masked_scatter,
    searchsorted,
)
from torch2mlx_templates.helpers.linalg import (
    cdist,
    cross,
    gather_mm,
    grouped_mm,
    integer_einsum,
    integer_matmul,
    matrix_exp,
    matrix_rank,
    pinv,
    significant,
    spectral_norm,
    vector_norm,
)
from torch2mlx_templates.helpers.losses import (
    multi_margin_loss,
    multilabel_margin_loss,
    nll_loss,
    smooth_nll_loss,
)
from torch2mlx_templates.helpers.matrices import block_diag, combinations, pdist
from torch2mlx_templates.helpers.order import (
    kth_smallest,
    lower_median,
    lower_nanmedian,
    mode,
    nanquantile,
    quantile,
)
from torch2mlx_templates.helpers.polynomials import (
    chebyshev_t,
    chebyshev_u,
    chebyshev_v,
    chebyshev_w,
    hermite_h,
    hermite_he,
    laguerre_l,
    legendre_p,
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
    istft,
    stft,
)
from torch2mlx_templates.helpers.special import (
    entr,
    erfcx,
    log_ndtr,
    ndtri,
    xlog1py,
)
