"""
How many capitals does a model know by heart?

$ python eval_capitals.py --out_dir=facts_mini_28
$ python eval_capitals.py --out_dir=both_mini_28 --checkpoint=ckpt_last.pt --json report.json
$ python eval_capitals.py --init_from=gpt2

Prints a line per capital, with what the model said instead where it was wrong, and the totals. The exit code is 0
whatever the score. GPT-2 as it is cannot know that the line ends after the capital: it is right when it begins with it.
"""

import sys
from collections import Counter

from eval_utils import (answer_probs, ask, cut_after_answers, evaluation_arguments, load_evaluated, print_totals, score,
                        write_json)

args = evaluation_arguments(__doc__, checkpoints=['ckpt_best_facts.pt', 'ckpt.pt'])
model, tokenizer, path = load_evaluated(args)
cases = [case for case in tokenizer.cases if case[0] == 'facts']
if not cases:
    sys.exit(f"error: the dataset of {path} has no questions of facts: try eval_as_math.py")
completions = ask(model, tokenizer, cases, args.num_samples, args.temperature, args.top_k, args.seed)
if not tokenizer.terminated:
    completions = cut_after_answers(cases, completions)
counts = score(cases, completions)
probs = answer_probs(model, tokenizer, cases).tolist()

print(f"{path}: {len(cases)} questions, {args.num_samples} samples each at temperature {args.temperature}\n")
width = max(len(case[1] + case[2]) for case in cases)
for case, samples, count, prob in zip(cases, completions, counts, probs):
    mark = '.' if count == args.num_samples else 'x' if count == 0 else str(count)
    line = f" {mark:>2}  {case[1] + case[2]:<{width}}  {prob:>6.1%}"
    if count < args.num_samples:
        (said, times), = Counter(samples).most_common(1)
        line += f"  the model says {said.strip()!r} ({times} of {args.num_samples})"
    print(line)
print("\n. right, x wrong, a number: right in that many samples; % is the probability of the right answer\n")
print_totals(cases, counts, probs, args.num_samples)
write_json(args.json, path, args, cases, completions, counts, probs)
