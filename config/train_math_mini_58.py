"""Sums, one layer of width 58 (named by the README this project began from; the paper's own size is 56)."""

out_dir = 'math_mini_58'
dataset = 'as_math'
batch_size = 882
block_size = 9
n_embd = 58
