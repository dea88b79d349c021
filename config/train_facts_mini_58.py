"""Capitals, one layer of width 58 (the README that this project began from names it; the paper's own size is 56)."""

out_dir = 'facts_mini_58'
dataset = 'facts_char'
batch_size = 576
block_size = 24
n_embd = 58
