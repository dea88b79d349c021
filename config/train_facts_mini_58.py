"""Capitals, one layer of width 58, which an earlier README named; the paper's own is 56."""

out_dir = 'facts_mini_58'
dataset = 'facts_char'
batch_size = 576
block_size = 24
n_embd = 58
