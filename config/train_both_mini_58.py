"""Arithmetic and capitals, one layer of width 58, which an earlier README named; the paper's own is 56."""

out_dir = 'both_mini_58'
dataset = 'both_math_and_facts'
batch_size = 576
block_size = 24
n_embd = 58
