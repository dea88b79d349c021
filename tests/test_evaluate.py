"""Asking a model: the fast path says what GPT.generate says, probabilities are exact, and sums agree with counting."""

from collections import Counter
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from little import little_model, paper_meta, paper_text, plain_answer, plain_prob, train

from common.answers import add_verdicts
from common.dataset import Meta
from common.evaluate import (
    answer_probs,
    cut_after_answer,
    estimate_loss,
    grade,
    next_token_logits,
    sample_answers,
    sample_completions,
    teacher_force,
)
from common.questions import FACT_END, Question, is_right
from common.report import totals
from common.results import results_row
from common.tokenizer import char_tokenizer

META = paper_meta()
TOKENIZER = META.tokenizer


def asked(model, tokenizer, questions, *args, **kwargs):
    return sample_answers(model, tokenizer, questions, teacher_force(model, tokenizer, questions), *args, **kwargs)


def probs_of(model, tokenizer, questions, terminated=True):
    return answer_probs(teacher_force(model, tokenizer, questions, terminated))


@pytest.fixture(scope='module')
def trained():
    """A model that has begun to learn the text, so that its answers are of all kinds."""
    return train(little_model(TOKENIZER.vocab_size), TOKENIZER.encode(paper_text()), steps=150)


# -----------------------------------------------------------------------------
# the fast path against the plain one


@pytest.mark.parametrize('temperature, std', [(0.01, None), (0, None), (0, 0.3)])
def test_answers_equal_the_plain_ones_if_these_are_no_coin_toss(trained, temperature, std):
    model = trained if std is None else little_model(TOKENIZER.vocab_size, std=std)
    questions = META.questions[:200:16] + META.questions[200::5]
    certain = 0
    for question, samples in zip(questions, asked(model, TOKENIZER, questions, 4, temperature, 10)):
        plain = {plain_answer(model, TOKENIZER, question, temperature, 10) for _ in range(2 if temperature else 1)}
        assert sum(samples.values()) == 4
        if len(plain) == 1 and len(samples) == 1:
            certain += 1
            assert set(samples) == plain, question
    assert certain == len(questions) if temperature == 0 else certain > len(questions) / 2


def test_samples_have_the_distribution_of_the_plain_ones(trained):
    prompt, n = TOKENIZER.encode('<3+4='), 4000
    rows = torch.tensor([prompt]).repeat(n, 1)
    torch.manual_seed(0)
    plain, again = (Counter(map(tuple, trained.generate(rows, 2, 1.0, 10)[:, 5:].tolist())) for _ in range(2))
    fast, = sample_completions(trained, [prompt], n, 2, 1.0, 10, seed=1)

    def distance(a, b):
        return sum(abs(a[key] - b[key]) for key in a | b) / (2 * n)
    noise = distance(plain, again)  # of two plain draws
    assert len(plain) > 10 and fast.total() == n
    assert distance(plain, fast) < 1.5 * noise + 0.01, (distance(plain, fast), noise)


@given(temperature=st.sampled_from([0, 0.01, 0.5, 1.0, 2.0]), top_k=st.sampled_from([None, 1, 3, 8, 99]),
       seed=st.integers(0, 99))
@settings(max_examples=30)
def test_tokens_are_drawn_with_the_probabilities_of_generate(temperature, top_k, seed):
    """Of the k likeliest tokens, each with the softmax of its logit over the temperature: five sigmas at most away."""
    logits = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed))
    n = 10**5
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr('common.evaluate.next_token_logits', lambda model, contexts: logits)
        drawn = sample_completions(None, [[0], [1]], n, 1, temperature, top_k, seed=seed)
    for row, counter in zip(logits.tolist(), drawn, strict=True):
        kept = sorted(range(8), key=lambda i: -row[i])[:1 if temperature == 0 else top_k]
        weights = {i: np.exp((row[i] - max(row)) / (temperature or 1)) for i in kept}
        for i in range(8):
            p = weights.get(i, 0.0) / sum(weights.values())
            assert abs(counter[i,] - n * p) <= 5 * np.sqrt(n * p * (1 - p)) + 1


def test_temperature_0_is_the_likeliest_token_and_one_sample_is_all(trained):
    prompts = [TOKENIZER.encode(q.prompt) for q in META.questions[::40]]
    greedy = sample_completions(trained, prompts, 5, 6, temperature=0)
    assert greedy == sample_completions(trained, prompts, 5, 6, temperature=0.7, top_k=1)
    for ids, counter in zip(prompts, greedy):
        new, = counter
        assert counter[new] == 5
        assert list(new) == trained.generate(torch.tensor([ids]), 6, temperature=0)[0, len(ids):].tolist()


def test_sampling_leaves_the_global_random_state_alone_and_follows_its_seed(trained):
    prompts = [TOKENIZER.encode('<3+4='), TOKENIZER.encode('Capital of ')]
    state, state_of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = sample_completions(trained, prompts, 50, 4, seed=3)
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == state_of_numpy).all()
    assert first == sample_completions(trained, prompts, 50, 4, seed=3)
    assert first != sample_completions(trained, prompts, 50, 4, seed=4)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_contexts_of_different_lengths_are_answered_as_one_by_one(lengths, seed):
    model = little_model(17, std=0.3, block_size=24)
    rng = np.random.default_rng(seed)
    contexts = [rng.integers(17, size=n).tolist() for n in lengths]
    logits = next_token_logits(model, contexts)
    assert logits.shape == (len(contexts), 17) and logits.dtype == torch.float32
    for ids, row in zip(contexts, logits):
        torch.testing.assert_close(row, model(torch.tensor([ids[-24:]]))[0][0, -1], rtol=1e-4, atol=1e-5)


def test_more_contexts_than_go_through_the_model_at_once_keep_their_order(monkeypatch, trained):
    contexts = [TOKENIZER.encode(q.prompt) for q in META.questions]
    at_once = next_token_logits(trained, contexts)
    monkeypatch.setattr('common.evaluate.ROWS', 7)
    torch.testing.assert_close(next_token_logits(trained, contexts), at_once, rtol=1e-4, atol=1e-5)


def test_what_is_known_from_the_right_answers_is_not_computed_again_and_changes_nothing(trained, monkeypatch):
    """Almost: other batches round differently, so samples may differ where two tokens are about equally likely."""
    questions, contexts = META.questions, []
    forced = teacher_force(trained, TOKENIZER, questions)
    plain = sample_completions(trained, forced.prompts, 10, 4, 0.01, 10)
    real = next_token_logits
    monkeypatch.setattr('common.evaluate.next_token_logits',
                        lambda model, some: contexts.extend(some) or real(model, some))
    fast = [sample_answers(trained, TOKENIZER, questions, forced)[i] for i in range(200)]
    right = {tuple(p + a[:n]) for p, a in zip(forced.prompts, forced.answers) for n in range(len(a))}
    assert contexts and not right & set(map(tuple, contexts))
    same = [dict(completions) == dict(Counter({TOKENIZER.decode(ids).split('>')[0]: n for ids, n in samples.items()}))
            for completions, samples in zip(fast, plain)]
    assert sum(same) > 190


def test_generation_stops_when_every_sample_has_ended_and_equal_ones_share_a_context(trained, monkeypatch):
    calls = []
    stop = TOKENIZER.encode('>')[0]

    def always_stops(model, contexts):
        calls.append(len(contexts))
        logits = torch.full((len(contexts), TOKENIZER.vocab_size), -50.0)
        logits[:, stop] = 50.0
        return logits
    monkeypatch.setattr('common.evaluate.next_token_logits', always_stops)
    done = sample_completions(trained, [TOKENIZER.encode('<3+4='), TOKENIZER.encode('<1+1=')], 30, 20, stop=stop)
    assert done == [Counter({(stop,): 30})] * 2 and calls == [2]


def test_exact_probability_is_the_product_of_the_steps(trained):
    questions = [META.questions[i] for i in (3, 57, 157, 200, 201, 225)]  # 57 and 157 are held out
    assert any(len(q.prompt) > trained.config.block_size for q in questions), 'one beyond the context'
    probs = probs_of(trained, TOKENIZER, questions)
    assert probs == pytest.approx([plain_prob(trained, TOKENIZER, q) for q in questions], rel=1e-4)
    # an answer of a dataset of one's own, whose terminator has two characters, or an answer longer than the paper's
    for question in (Question('own', '<3+4=', '7', 'seen', '> '), Question('own', '<3+4=', '7' * 9),
                     META.questions[201]):
        prob, = probs_of(trained, TOKENIZER, [question])
        assert prob == pytest.approx(plain_prob(trained, TOKENIZER, question), rel=1e-4)
        assert probs_of(trained, TOKENIZER, [question], terminated=False)[0] > prob


# -----------------------------------------------------------------------------
# the graded table


@pytest.mark.parametrize('question', [
    Question('powers', '<2^40=', str(2**40), 'seen', ';'),
    Question('mottos', 'State motto: ', 'liberty and prosperity', 'seen', '!;;\n')])
def test_an_answer_longer_than_the_papers_is_given_the_tokens_it_needs(question):
    text = (question.line.rstrip('\n') + '\n') * 4
    meta = Meta(char_tokenizer({ch: i for i, ch in enumerate(sorted(set(text)))}), [question], has_questions=True)
    model = train(little_model(meta.tokenizer.vocab_size), meta.tokenizer.encode(text), steps=300)
    table = grade(model, meta.tokenizer, meta.questions, num_samples=3)
    assert table.correct[0] == 3 and table.said[0] == question.answer
    assert table.prob[0] == pytest.approx(plain_prob(model, meta.tokenizer, question), rel=1e-4)


def test_the_graded_table_counts_what_the_paper_counts_and_keeps_the_models_mode(trained):
    trained.train()
    table = grade(trained, TOKENIZER, META.questions, num_samples=3)
    assert trained.training
    trained.eval()
    completions = asked(trained, TOKENIZER, META.questions, 3)
    assert list(table.columns) == ['task', 'prompt', 'answer', 'group', 'samples', 'correct', 'prob', 'said',
                                   'completions', 'right', 'always_right']
    for row, question, samples in zip(table.itertuples(), META.questions, completions):
        assert (row.task, row.prompt, row.answer, row.group, row.samples) == (*question[:4], 3)
        assert row.correct == sum(is_right(question.answer, question.terminator, text) for text in samples.elements())
        assert row.completions == samples and samples[row.said] == max(samples.values())
    assert list(table.prob) == pytest.approx(probs_of(trained, TOKENIZER, META.questions), rel=1e-6)
    some = grade(trained, TOKENIZER, META.questions[50:60], num_samples=3)
    assert list(some.prompt) == list(table.prompt[50:60])
    assert list(some.prob) == pytest.approx(list(table.prob[50:60]), rel=1e-4)


@pytest.mark.parametrize('answer, completion, cut', [
    ('Paris', ' Paris, which is', ' Paris'), ('Paris', ' paris', ' paris'),
    ('Paris', ' Parisian life', ' Parisian life'),
    ('Paris', ' a city, Paris', ' a city, Paris'), ('Washington DC', ' Washington DC.\n', ' Washington DC'),
    ('7', '7 or so', '7')])
def test_a_model_that_cannot_know_how_lines_end_is_right_if_it_begins_with_the_answer(answer, completion, cut):
    question = Question('facts', 'prompt', answer, 'beyond', FACT_END)
    assert cut_after_answer(question, Counter({completion: 2, 'x': 1})) == Counter({cut: 2, 'x': 1})


def test_completions_that_become_equal_when_cut_are_counted_together():
    question = Question('facts', 'prompt', 'Paris', 'beyond', FACT_END)
    assert cut_after_answer(question, Counter({'Paris, and': 2, 'Paris is': 1, 'Rome': 4})) == {'Paris': 3, 'Rome': 4}


# -----------------------------------------------------------------------------
# sums of it

COLUMNS = ('iter add_correct add_total sub_correct sub_total math_acc facts_correct facts_total facts_acc train_loss '
           'val_loss seen_acc heldout_correct heldout_total heldout_acc seen_prob heldout_prob').split()
SAMPLES = 4


@st.composite
def graded(draw):
    """(questions, graded table) of any tasks, a dataset's own and the paper's, answered in any way."""
    kinds = st.sampled_from([('add', '7', '>'), ('sub', '-7', '>'), ('facts', 'Paris', FACT_END), ('mul', '12', ';'),
                             ('verbs', 'sang', '\n')])
    drawn = draw(st.lists(st.tuples(kinds, st.sampled_from(['seen', 'held out', 'beyond']), st.integers(0, SAMPLES),
                                    st.floats(0, 1)), max_size=12))
    questions = [Question(task, f'prompt {i}', answer, group, end)
                 for i, ((task, answer, end), group, _, _) in enumerate(drawn)]
    rows = [(*q[:4], SAMPLES, correct, prob, q.answer if 2 * correct > SAMPLES else 'x', Counter(x=SAMPLES))
            for q, (_, _, correct, prob) in zip(questions, drawn)]
    columns = ['task', 'prompt', 'answer', 'group', 'samples', 'correct', 'prob', 'said', 'completions']
    return questions, add_verdicts(pd.DataFrame(rows, columns=columns), [q.terminator for q in questions])


@given(graded())
@settings(max_examples=40)
def test_totals_agree_with_counting_by_hand(questions_and_table):
    _, table = questions_and_table
    rows = list(table.itertuples())
    names = {'addition': 'add', 'subtraction': 'sub', 'facts': 'facts', 'mul': 'mul', 'verbs': 'verbs'}
    found = totals(table)
    tasks = {name for name, task in names.items() if any(r.task == task for r in rows)}
    assert {total['group'] for total in found} == tasks | {r.group for r in rows}
    for total in found:
        part = [r for r in rows if r.group == total['group'] or r.task == names.get(total['group'])]
        assert total == {
            'group': total['group'], 'questions': len(part), 'total': SAMPLES * len(part),
            'questions_right': sum(2 * r.correct > SAMPLES for r in part),
            'correct': sum(r.correct for r in part), 'acc': sum(r.correct for r in part) / (SAMPLES * len(part)),
            'prob': pytest.approx(sum(r.prob for r in part) / len(part))}
    # tasks first, in the order of their questions, then the groups in theirs
    found = [total['group'] for total in found]
    tasks = [name for name in found if name in names]
    assert found[:len(tasks)] == tasks == sorted(tasks, key=lambda name: [r.task for r in rows].index(names[name]))
    assert found[len(tasks):] == [g for g in ('seen', 'held out', 'beyond') if g in found]


@given(graded())
@settings(max_examples=40)
def test_a_row_of_results_has_the_papers_columns_first_and_a_datasets_own_tasks_last(questions_and_table):
    questions, table = questions_and_table
    row = results_row(250, table, questions, 1.5, 1.6)
    own = [task for task in dict.fromkeys(q.task for q in questions) if task in ('mul', 'verbs')]
    own_columns = [f'{task}_{what}' for task in own for what in ('correct', 'total')]
    assert list(row)[:len(COLUMNS)] == COLUMNS and list(row)[len(row) - len(own_columns):] == own_columns
    assert (row['iter'], row['train_loss'], row['val_loss']) == (250, 1.5, 1.6)

    def count(wanted):
        """Right samples, all samples and the mean probability of the questions that are wanted."""
        rows = [r for q, r in zip(questions, table.itertuples()) if wanted(q)]
        return sum(r.correct for r in rows), SAMPLES * len(rows), sum(r.prob for r in rows) / max(len(rows), 1)
    for task in ('add', 'sub', *own):
        assert (row[f'{task}_correct'], row[f'{task}_total']) == count(lambda q, task=task: q.task == task)[:2]
    # math and facts are kinds: a dataset's own tasks count there, too
    assert (row['facts_correct'], row['facts_total']) == count(lambda q: q.task in ('facts', 'verbs'))[:2]
    for name, wanted in (('math', lambda q: q.task in ('add', 'sub', 'mul')),
                         ('facts', lambda q: q.task in ('facts', 'verbs')),
                         ('seen', lambda q: q.group == 'seen'), ('heldout', lambda q: q.group == 'held out')):
        correct, total, prob = count(wanted)
        assert row[f'{name}_acc'] == correct / max(total, 1)
        assert f'{name}_prob' not in row or row[f'{name}_prob'] == pytest.approx(prob)
    assert (row['heldout_correct'], row['heldout_total']) == count(lambda q: q.group == 'held out')[:2]


# -----------------------------------------------------------------------------
# losses


def test_a_loss_is_exact_over_few_windows_and_sampled_over_many(trained):
    ids = np.array(TOKENIZER.encode(paper_text()), dtype=np.uint16)
    windows = torch.tensor(ids.astype(np.int64)).unfold(0, 25, 1)
    with torch.no_grad():
        exact = trained(windows[:, :-1], windows[:, 1:])[1].item()
    trained.train()
    for batch_size in (64, 100, 5000):
        assert estimate_loss(trained, ids, batch_size, 200, 0, nullcontext()) == pytest.approx(exact, rel=1e-5)
    sampled = [estimate_loss(trained, ids, 16, 20, seed, nullcontext()) for seed in (0, 0, 1)]
    assert trained.training
    trained.eval()
    assert sampled[0] == sampled[1] != sampled[2] and sampled == pytest.approx([exact] * 3, rel=0.1)
