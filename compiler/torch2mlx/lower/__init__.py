"""Lowering: each ATen node becomes MLX calls and layers, by the two mapping tables."""
