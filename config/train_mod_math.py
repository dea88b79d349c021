"""Addition modulo 97, half of the questions held out, two layers of width 128, strong weight decay: does it grok?

Prepare it with python data/mod_math/prepare.py; Power et al. 2022 needed some ten thousand iterations.
"""

out_dir = 'mod_math'
dataset = 'mod_math'
batch_size = 512
block_size = 11
n_layer = 2
n_head = 4
n_embd = 128
mlp_expansion = 4
weight_decay = 1.0
learning_rate = 1e-3
min_lr = 1e-3
warmup_iters = 100
eval_interval = 1000
full_eval_interval = 2500
num_samples = 1
