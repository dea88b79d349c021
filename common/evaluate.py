"""
Asks a model questions, grades the answers in one table, and sums the table up.

The table is a pandas DataFrame with a row for each question: task, prompt, answer, group, samples (how many were drawn),
correct (how many of them were right), prob (the exact probability of the whole right answer), said (the most frequent sample),
completions (a Counter of all samples), right (said is right), always_right (all samples are).
"""

import re
from collections import Counter

import numpy as np
import pandas as pd
import torch

from common.answers import add_verdicts
from common.errors import UserError
from common.questions import GROUPS, LABELS, completion_of, is_correct
from common.results import CLASSIC_COLUMNS

NEW_TOKENS = {'math': 4, 'facts': 20}  # the paper's length of an answer, exceeded only if a dataset's own answers are longer
ROWS = 512  # contexts that go through the model at once, to bound the memory that it takes


@torch.inference_mode()
def next_token_logits(model, contexts):
    """Logits of the token after each of the contexts (lists of ids, of any lengths): a float32 tensor (N, vocab_size).

    A context longer than block_size is cropped to its end, as generation does. Contexts of one length go through the model
    together, so that none has to be padded.
    """
    contexts = [ids[-model.config.block_size:] for ids in contexts]
    lengths, device = np.array([len(ids) for ids in contexts]), model.lm_head.weight.device
    logits = torch.empty(len(contexts), model.config.vocab_size, device=device)
    for length in np.unique(lengths):
        same = np.flatnonzero(lengths == length)
        for some in np.split(same, range(ROWS, len(same), ROWS)):
            logits[some] = model(torch.tensor([contexts[i] for i in some], device=device))[0][:, -1].float()
    return logits


def sample_completions(model, prompts, num_samples, max_new_tokens, temperature=1.0, top_k=None, stop=None, seed=1337):
    """Draw num_samples continuations of each prompt: a list of a Counter for each prompt, continuation (tuple of ids) to times.

    The distribution is the same as if GPT.generate drew them one by one. Samples that are equal so far share one context, so
    the model is asked once for all of them, and the number that go on with each token is multinomial. At low temperature
    nearly all samples are equal.
    prompts: lists of ids. temperature 0 is greedy. top_k: sample from the k likeliest tokens only. stop: the token that ends a
    continuation. seed: for the sampling, which leaves torch's and numpy's global random state alone.
    """
    rng = np.random.default_rng(seed)
    done = [Counter() for _ in prompts]
    going = [(i, (), num_samples) for i in range(len(prompts))]  # prompt, continuation so far, samples that share it
    for _ in range(max_new_tokens):
        logits = next_token_logits(model, [prompts[i] + list(new) for i, new, _ in going])
        likeliest, tokens = logits.topk(min(top_k or logits.size(-1), logits.size(-1)))
        if temperature < 1e-6:  # greedy
            likeliest, tokens = likeliest[:, :1], tokens[:, :1]
        probs = (likeliest / max(temperature, 1e-6)).softmax(dim=-1).cpu().double().numpy()
        times = rng.multinomial([n for _, _, n in going], probs / probs.sum(axis=1, keepdims=True))
        tokens, still_going = tokens.tolist(), []
        for i, j in zip(*(axis.tolist() for axis in times.nonzero())):
            prompt, new, _ = going[i]
            new, n = (*new, tokens[i][j]), int(times[i, j])
            if new[-1] == stop:
                done[prompt][new] += n
            else:
                still_going.append((prompt, new, n))
        going = still_going
        if not going:
            break
    for prompt, new, n in going:
        done[prompt][new] += n
    return done


def split_prompt(tokenizer, question):
    """The text that the model is given, and the text that it should write: (prompt, answer).

    In GPT-2's encoding, spaces at the end of a prompt belong to the answer: ' Paris' is one token there, and it cannot follow
    a space that stands alone.
    """
    asked = question.prompt.rstrip(' ') if tokenizer.bpe else question.prompt
    return asked, question.prompt[len(asked):] + question.answer


def ask(model, tokenizer, questions, num_samples=10, temperature=0.01, top_k=10, seed=1337):
    """Put every question to the model num_samples times.

    Returns, for each question, a Counter of completion (str, without the character that ends an answer) to times.
    """
    completions = [None] * len(questions)
    for stop, kind in sorted({(q.terminator[-1], q.kind) for q in questions}):
        chosen = [i for i, q in enumerate(questions) if (q.terminator[-1], q.kind) == (stop, kind)]
        split = [split_prompt(tokenizer, questions[i]) for i in chosen]
        new_tokens = max(NEW_TOKENS[kind], *(len(tokenizer.encode(answer + questions[i].terminator))
                                             for i, (_, answer) in zip(chosen, split)))
        stop_ids = tokenizer.encode(stop)
        samples = sample_completions(model, [tokenizer.encode(prompt) for prompt, _ in split], num_samples, new_tokens,
                                     temperature, top_k, stop_ids[0] if len(stop_ids) == 1 else None, seed)
        for i, counter in zip(chosen, samples):
            completions[i] = Counter()
            for ids, times in counter.items():
                completions[i][completion_of(questions[i], tokenizer.decode(ids))] += times
    return completions


def answer_probs(model, tokenizer, questions, terminated=True):
    """The exact probability of each question's whole answer and its terminator: a float64 array.

    Teacher-forced: every token of the answer has a context of its own, because the context slides once it is full. Nothing is
    sampled. terminated: False leaves the terminator out, for a model that cannot know it.
    """
    contexts, targets, owners = [], [], []
    for i, question in enumerate(questions):
        prompt, answer = split_prompt(tokenizer, question)
        ids, new = tokenizer.encode(prompt), tokenizer.encode(answer)
        for ch in question.terminator if terminated else '':
            new += tokenizer.encode(ch)  # one by one: GPT-2 may join spaces at the end of a text, but not inside it
        contexts += [ids + new[:n] for n in range(len(new))]
        targets += new
        owners += [i] * len(new)
    log_probs = next_token_logits(model, contexts).log_softmax(dim=-1)[torch.arange(len(targets)), targets]
    return np.exp(np.bincount(owners, log_probs.cpu().double().numpy(), minlength=len(questions)))


def grade(model, meta, questions=None, num_samples=10, temperature=0.01, top_k=10, seed=1337, terminated=True):
    """Ask and score questions, the dataset's own by default: the graded table that this file's docstring describes.

    The model is put into eval mode and back. terminated: False for a model that does not know how our lines end, like GPT-2:
    if its answer begins with the right one, the rest is cut off.
    """
    questions = meta.questions if questions is None else questions
    was_training = model.training
    model.eval()
    completions = ask(model, meta.tokenizer, questions, num_samples, temperature, top_k, seed)
    probs = answer_probs(model, meta.tokenizer, questions, terminated)
    model.train(was_training)
    if not terminated:
        completions = [cut_after_answer(q, counter) for q, counter in zip(questions, completions)]
    rows = [(q.task, q.prompt, q.answer, q.group, num_samples,
             sum(times for text, times in counter.items() if is_correct(q, text)), prob, counter.most_common(1)[0][0], counter)
            for q, counter, prob in zip(questions, completions, probs)]
    return add_verdicts(pd.DataFrame(rows, columns='task prompt answer group samples correct prob said completions'.split()))


def cut_after_answer(question, completions):
    """The completions; if one begins with the right fact, and not just with a longer word, the rest is cut off."""
    cut = Counter()
    for text, times in completions.items():
        match = re.match(rf'\s*{re.escape(question.answer)}(?!\w)', text, re.IGNORECASE)
        cut[match[0] if match and question.kind == 'facts' else text] += times
    return cut


@torch.inference_mode()
def estimate_loss(model, ids, batch_size, eval_iters, seed, autocast):
    """Mean cross-entropy of a text in nats: exact over all its windows if these are few, else over eval_iters random batches.

    ids: 1-D array. seed: of the random batches. The model is put into eval mode and back.
    """
    windows = np.lib.stride_tricks.sliding_window_view(ids, model.config.block_size + 1)
    if len(windows) <= eval_iters * batch_size:
        batches = np.split(np.arange(len(windows)), range(batch_size, len(windows), batch_size))
    else:
        batches = np.random.default_rng(seed).integers(len(windows), size=(eval_iters, batch_size))
    was_training, total = model.training, 0.0
    model.eval()
    for starts in batches:
        batch = torch.from_numpy(windows[starts].astype(np.int64)).to(model.lm_head.weight.device)
        with autocast:
            total += model(batch[:, :-1], batch[:, 1:])[1].item() * len(batch)
    model.train(was_training)
    return total / sum(map(len, batches))


def estimate_losses(model, train_ids, val_ids, *args):
    """(training loss, validation loss) by estimate_loss; raises UserError if they are not finite."""
    train_loss = estimate_loss(model, train_ids, *args)
    val_loss = train_loss if np.array_equal(train_ids, val_ids) else estimate_loss(model, val_ids, *args)
    if not np.isfinite(train_loss + val_loss):
        raise UserError(f"the loss is {train_loss}: training has diverged, so try a smaller learning_rate; the checkpoints are "
                        "from before this")
    return train_loss, val_loss


# -----------------------------------------------------------------------------
# sums of a graded table

def summed(table):
    """Scores of a graded table, or a part of it, as a dict.

    questions_right counts the questions whose most frequent sample is right; correct and total count samples; acc and prob are
    fractions of 1, and 0.0 if nothing is asked.
    """
    correct, total = int(table.correct.sum()), int(table.samples.sum())
    return {'questions': len(table), 'questions_right': int(table.right.sum()), 'correct': correct,
            'total': total, 'acc': correct / max(total, 1), 'prob': float(table.prob.sum()) / max(len(table), 1)}


def parts(table):
    """The table cut by task, under the names that people read, and then by group: dict of name to its rows."""
    named = {LABELS.get(task, task): table[table.task == task] for task in table.task.unique()}
    return named | {group: table[table.group == group] for group in GROUPS if (table.group == group).any()}


def results_row(iter_num, table, questions, train_loss, val_loss):
    """A row of results.csv, as a dict, from a graded table of `questions`; tasks other than the paper's come last."""
    is_math = np.array([q.kind == 'math' for q in questions], dtype=bool)
    own = [task for task in table.task.unique() if task not in ('add', 'sub', 'facts')]
    cut = {task: table[table.task == task] for task in ('add', 'sub', *own)}
    cut |= {'math': table[is_math], 'facts': table[~is_math], 'seen': table[table.group == 'seen'],
            'heldout': table[table.group == 'held out']}
    scores = {f'{name}_{key}': value for name, rows in cut.items() for key, value in summed(rows).items()}
    scores |= {'iter': iter_num, 'train_loss': train_loss, 'val_loss': val_loss}
    ours = 'seen_acc heldout_correct heldout_total heldout_acc seen_prob heldout_prob math_total'.split()
    columns = CLASSIC_COLUMNS + ours + [f'{task}_{key}' for task in own for key in ('correct', 'total')]
    return {column: scores[column] for column in columns}
