"""
Evaluates a model on questions, and grades its answers in one table.

The table is a pandas DataFrame with a row for each question: task, prompt, answer, group, samples (how many were
drawn), correct (how many of them are right), prob (the exact probability of the whole right answer), said (the most
frequent sample), completions (a Counter of all samples), right (said is right), always_right (all samples are).
"""

import re
from collections import Counter
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from common.answers import add_verdicts
from common.errors import UserError
from common.questions import Question, completion_of, is_right

NEW_TOKENS = {'math': 4, 'facts': 20}  # the paper's length of an answer, exceeded only if a dataset has longer answers
ROWS = 512  # contexts that go through the model at once, to bound the memory that it takes


def in_pieces(numbers):
    return [numbers[start:start + ROWS] for start in range(0, len(numbers), ROWS)]


@torch.inference_mode()
def next_token_logits(model, contexts):
    """Logits of the token after each context (lists or tuples of ids, of any lengths): float32, (N, vocab_size).

    A context longer than block_size is cropped to its end. Those of one length share passes, so none has to be padded.
    """
    contexts = [ids[-model.config.block_size:] for ids in contexts]
    lengths, device = np.array([len(ids) for ids in contexts], dtype=int), model.lm_head.weight.device
    logits = torch.empty(len(contexts), model.config.vocab_size, device=device)
    for length in np.unique(lengths):
        for some in in_pieces(np.flatnonzero(lengths == length)):
            logits[some] = model(torch.tensor([contexts[i] for i in some], device=device))[0][:, -1].float()
    return logits


class TeacherForced(NamedTuple):
    """Questions as token ids, and what the model expects along their right answers."""
    prompts: list  # of lists of ids
    answers: list  # of lists of ids, the terminators included
    logits: torch.Tensor  # (all tokens of all answers, vocab_size), float32: before each token of the first answer, ...


@torch.inference_mode()
def teacher_force(model, tokenizer, questions, terminated=True):
    """The TeacherForced of some questions. terminated=False leaves out the terminators, which GPT-2 cannot know.

    A line that fits into block_size goes through the model once. Of a longer one, every token has a context of its own,
    because the context slides once it is full.
    """
    prompts, answers = [], []
    # the terminator's characters one by one: GPT-2 may join spaces at the end of a text, but not inside it
    ends = {q.terminator: [i for ch in q.terminator for i in tokenizer.encode(ch)] for q in questions}
    for q in questions:
        prompt = q.prompt.rstrip(' ') if tokenizer.bpe else q.prompt  # ' Paris' is one token there, space included
        prompts.append(tokenizer.encode(prompt))
        answers.append(tokenizer.encode(q.prompt[len(prompt):] + q.answer) + (ends[q.terminator] if terminated else []))
    # the positions that expect the answer's tokens
    starts = np.array([len(prompt) - 1 for prompt in prompts], dtype=int)
    stops = starts + np.array([len(answer) for answer in answers], dtype=int)
    fits = stops <= model.config.block_size
    of_fitting = torch.from_numpy(np.repeat(fits, stops - starts))
    logits = torch.empty(len(of_fitting), model.config.vocab_size, device=model.lm_head.weight.device)
    pieces, width = [logits[:0]], stops[fits].max(initial=0)
    for some in in_pieces(np.flatnonzero(fits)):
        # filled up on the right, where a causal model does not look
        lines = [(prompts[i] + answers[i] + [0] * width)[:width] for i in some]
        idx = torch.tensor(lines, device=logits.device)
        expected = model(idx, targets=idx)[0].float()  # with targets, the logits of all positions come back
        positions = np.arange(width)
        in_answer = (positions >= starts[some, None]) & (positions < stops[some, None])
        pieces.append(expected[torch.from_numpy(in_answer).to(logits.device)])
    logits[of_fitting] = torch.cat(pieces)
    logits[~of_fitting] = next_token_logits(model, [prompts[i] + answers[i][:n] for i in np.flatnonzero(~fits)
                                                    for n in range(len(answers[i]))])
    return TeacherForced(prompts, answers, logits)


def answer_probs(forced):
    """The exact probability of each question's whole answer, with its terminator: float64. Nothing is sampled."""
    targets = [i for answer in forced.answers for i in answer]
    owners = np.repeat(np.arange(len(forced.answers)), list(map(len, forced.answers)))
    log_probs = forced.logits.log_softmax(dim=-1)[torch.arange(len(targets)), targets]
    return np.exp(np.bincount(owners, log_probs.cpu().double().numpy(), minlength=len(forced.answers)))


def sample_completions(model, prompts, num_samples, max_new_tokens, temperature=1.0, top_k=None, stop=None, seed=1337,
                       known=None):
    """Draw num_samples continuations of each prompt (lists of ids): for each, a Counter of continuation to times.

    They have the distribution of GPT.generate's, but samples that are equal so far share one context, and the number of
    them that go on with each token is multinomial: at low temperature nearly all are equal. temperature 0 is greedy.
    stop: the token that ends one. known: logits that need not be computed again, and a dict of context to row.
    """
    rng = np.random.default_rng(seed)
    known_logits, row_of = known or (None, {})
    done = [Counter() for _ in prompts]
    going = [(i, tuple(prompt), num_samples) for i, prompt in enumerate(prompts)]  # context, samples that share it
    for _ in range(max_new_tokens):
        index = np.array([row_of.get(context, -1) for _, context, _ in going])
        logits = next_token_logits(model, [context for (_, context, _), row in zip(going, index) if row < 0])
        if known:
            computed, logits = logits, known_logits[index]
            logits[index < 0] = computed
        likeliest, tokens = logits.topk(1 if temperature == 0 else min(top_k or logits.size(-1), logits.size(-1)))
        likeliest = likeliest.cpu().double().numpy()
        probs = np.exp((likeliest - likeliest[:, :1]) / (temperature or 1.0))
        times = rng.multinomial([n for _, _, n in going], probs / probs.sum(axis=1, keepdims=True))
        tokens, still_going, drawn = tokens.cpu().numpy(), [], times.nonzero()
        for number, token, n in zip(drawn[0].tolist(), tokens[drawn].tolist(), times[drawn].tolist()):
            i, context, _ = going[number]
            context = (*context, token)
            if token == stop:
                done[i][context[len(prompts[i]):]] += n
            else:
                still_going.append((i, context, n))
        going = still_going
        if not going:
            break
    for i, context, n in going:
        done[i][context[len(prompts[i]):]] += n
    return done


def sample_answers(model, tokenizer, questions, forced, num_samples=10, temperature=0.01, top_k=10, seed=1337):
    """For each question, a Counter of completion (str, without the character that ends an answer) to times.

    forced: the TeacherForced of these questions, which has the logits of samples that are right so far.
    """
    completions, first = [None] * len(questions), np.cumsum([0, *map(len, forced.answers)])
    row_of = {(*prompt, *answer[:n]): row + n for prompt, answer, row in zip(forced.prompts, forced.answers, first)
              for n in range(len(answer))}
    decode = cache(tokenizer.decode)  # many questions have the same answer
    for stop, kind in sorted({(q.terminator[-1], q.kind) for q in questions}):
        chosen = [i for i, q in enumerate(questions) if (q.terminator[-1], q.kind) == (stop, kind)]
        new_tokens = max(NEW_TOKENS[kind], *(len(forced.answers[i]) for i in chosen))
        stop_ids = tokenizer.encode(stop)
        samples = sample_completions(
            model, [forced.prompts[i] for i in chosen], num_samples, new_tokens, temperature, top_k,
            stop_ids[0] if len(stop_ids) == 1 else None, seed, (forced.logits, row_of))
        for i, counter in zip(chosen, samples):
            completions[i] = Counter()
            for ids, times in counter.items():
                completions[i][completion_of(questions[i], decode(ids))] += times
    return completions


def grade(model, tokenizer, questions, num_samples=10, temperature=0.01, top_k=10, seed=1337, terminated=True):
    """Evaluate a model on questions: the graded table of this file's docstring. The model's mode stays as it is.

    terminated=False is for GPT-2, which cannot know how our lines end: what follows the right fact is cut off.
    """
    was_training = model.training
    model.eval()
    forced = teacher_force(model, tokenizer, questions, terminated)
    completions = sample_answers(model, tokenizer, questions, forced, num_samples, temperature, top_k, seed)
    model.train(was_training)
    if not terminated:
        completions = [cut_after_answer(q, counter) for q, counter in zip(questions, completions)]
    table = pd.DataFrame(questions, columns=Question._fields)
    correct = [sum(times for text, times in counter.items() if is_right(q.answer, q.terminator, text))
               for q, counter in zip(questions, completions)]
    said = [max(counter, key=counter.get) for counter in completions]
    table = table.assign(samples=num_samples, correct=np.array(correct, dtype=int), prob=answer_probs(forced),
                         said=said, completions=completions)
    return add_verdicts(table.drop(columns='terminator'), table.terminator)


def cut_after_answer(question, completions):
    """The completions; if one begins with the right fact, and not just with a longer word, the rest is cut off."""
    cut = Counter()
    for text, times in completions.items():
        match = re.match(rf'\s*{re.escape(question.answer)}(?!\w)', text, re.IGNORECASE)
        cut[match[0] if match and question.kind == 'facts' else text] += times
    return cut


@torch.inference_mode()
def estimate_loss(model, ids, batch_size, eval_iters, seed, autocast):
    """Mean cross-entropy of a text (1-D ids) in nats. The model's mode stays as it is.

    It is exact over all windows if these are few, else over eval_iters random batches, drawn with the seed.
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
        raise UserError(f"the loss is {train_loss}: training has diverged, so try a smaller learning_rate; the saved "
                        "checkpoints are from before")
    return train_loss, val_loss
