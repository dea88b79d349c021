"""Arithmetic, one layer of width 58, which an earlier README named; the paper's own is 56."""

out_dir = 'math_mini_58'
n_embd = 58
