"""Sums, one layer: the runs of the study, in which a sweep varies the width and the dataset (docs/sweeps.md)."""

out_dir = 'study'
dataset = 'as_math'
batch_size = 882
block_size = 9
n_embd = 14
