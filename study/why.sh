#!/usr/bin/env bash
# Train the runs of study/why.md that results/ does not have yet, and add those that have finished to their copies there.
#
# $ bash study/why.sh          # all of them, in the order of the experiments; it can be stopped and started again
# $ bash study/why.sh save     # only add what has finished so far
#
# The datasets must be there (python study/datasets.py). JOBS is how many runs go side by side, and PYTHON is the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

# part NAME WHEN OPTION...: a sweep, and of which evaluations its copy has the answers
part() {
  local name=$1 when=$2
  shift 2
  if [ "$command" = train ]; then
    nice -n 19 "$python" sweep.py config/train_math_mini_14.py --name="$name" --finished="results/$name" --jobs="${JOBS:-2}" "$@"
  fi
  if ls "sweeps/$name"/*/seed_*/results.csv > /dev/null 2>&1; then
    "$python" summarize.py "sweeps/$name" --output="results/$name" --add --when $when > /dev/null
  fi
}

# bases KIND: the datasets of all bases, as a sweep lists them
bases() {
  local datasets=''
  for base in 8 12 16 20 24; do datasets+=",base_${base}_$1{seed}"; done
  echo "${datasets:1}"
}

command=${1:-train}
rarely="--eval_interval=1000 --full_eval_interval=1000"

# A: one order hidden
part why_order last --seeds=8 $rarely --n_embd=6,8,10,12,14,20,28,56 --dataset=one_order_{seed}

# B: how much there is to learn, the same with shuffled answers, and as many passes
part why_base last --seeds=8 $rarely --n_embd=8,10,12,14,20,28,40,56 --dataset="$(bases '')"
part why_shuffled last --seeds=4 $rarely --n_embd=8,10,12,14,20,28,40,56 --dataset="$(bases shuffled_)"
part why_fewer_passes last --seeds=8 --eval_interval=400 --full_eval_interval=400 --n_embd=14,20,28 --dataset=base_8_{seed} \
  --max_iters=4800 --warmup_iters=320 --lr_decay_iters=4000
part why_more_passes last --seeds=8 $rarely --n_embd=14,20,28 --dataset=base_20_{seed} \
  --max_iters=60000 --warmup_iters=4000 --lr_decay_iters=50000

# C: a load that is not arithmetic; as many passes of each line as without it
part why_load_20 last --seeds=16 $rarely --n_embd=20 \
  --dataset=load_random_200_{seed},load_regular_200_{seed},load_shuffled_200_{seed} \
  --max_iters=67500 --warmup_iters=4500 --lr_decay_iters=56250
part why_load_28 last --seeds=16 $rarely --n_embd=28 \
  --dataset=load_random_400_{seed},load_regular_400_{seed},load_shuffled_400_{seed} \
  --max_iters=105000 --warmup_iters=7000 --lr_decay_iters=87500

# D: time and decay
part why_time "30000 100000 last" --seeds=8 --eval_interval=10000 --full_eval_interval=10000 --n_embd=20,28 \
  --weight_decay=0,0.1,1.0 --dataset=rounds_2_{seed} --max_iters=300000

# E: fewer examples among as many lines; without the other lines, as many passes
loads=''
for n in 288 432; do loads+=",examples_${n}_random_{seed},examples_${n}_regular_{seed}"; done
part why_examples last --seeds=8 $rarely --n_embd=14,20,28 --dataset="${loads:1}"
for n in 288 432 576 720; do  # the schedule is scaled by n / 864, and rounded
  part why_examples_$n last --seeds=8 $rarely --n_embd=14,20,28 --dataset="examples_${n}_none_{seed}" \
    --max_iters=$((30000 * n / 864)) --warmup_iters=$(((2000 * n + 432) / 864)) \
    --lr_decay_iters=$(((25000 * n + 432) / 864))
done
