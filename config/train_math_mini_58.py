"""Sums, one layer of width 58 (the README that this project began from names it; the paper's own size is 56)."""

out_dir = 'math_mini_58'
dataset = 'as_math'
batch_size = 882
block_size = 9
n_embd = 58
