"""Arithmetic, one layer of width 28."""

out_dir = 'math_mini_28'
n_embd = 28
