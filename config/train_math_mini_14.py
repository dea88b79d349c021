"""Arithmetic, one layer of width 14."""

out_dir = 'math_mini_14'
n_embd = 14
