"""Sums and capitals, one layer of width 58 (the README that this project began from names it; the paper's own size is 56)."""

out_dir = 'both_mini_58'
dataset = 'both_math_and_facts'
batch_size = 576
block_size = 24
n_embd = 58
