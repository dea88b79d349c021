"""eval_as_math.py and eval_capitals.py: reports that agree with their json, larger sums, the run's own sampling."""

import json
import re
import shutil
from collections import Counter

import pandas as pd
import pytest
import torch
from conftest import REPO, TINY
from little import plain_answer, plain_prob

from common.checkpoint import load_model
from common.questions import is_right
from common.report import print_choice
from common.results import CLASSIC_COLUMNS
from common.sweeps import read_sweep, summarize
from summarize import print_comparison, print_table


def report_of(project, script, *args):
    """(output, json report) of an evaluation."""
    out = project.check(script, *args, '--json=report.json')
    return out, json.loads((project.folder / 'report.json').read_text())


def test_the_mathematics_report_agrees_with_its_json(project):
    out, report = report_of(project, 'eval_as_math.py', '--out_dir=math_mini_14', '--num_samples=3')
    assert 'addition, a down and b across:' in out and 'subtraction, a down' in out and '[' in out
    assert len(report['questions']) == 200
    assert [row['group'] for row in report['totals']] == ['addition', 'subtraction', 'seen', 'held out']
    right = sum(q['correct'] == 3 for q in report['questions'])
    assert out.count(' predicted ') == min(25, 200 - right) and f'... and {200 - right - 25} more' in out
    assert max(map(len, out.splitlines())) <= 80
    held_out = report['totals'][-1]
    assert held_out['questions'] == 4 and held_out['total'] == 12
    for q in report['questions']:
        assert len(q['samples']) == 3
        assert q['correct'] == sum(bool(re.match(rf'\s*{q["answer"]}(?!\d)', text)) for text in q['samples'])
    out = project.check('eval_as_math.py', '--out_dir=math_mini_14', '--operation=subtraction',
                        '--checkpoint=ckpt_last.pt')
    assert 'addition,' not in out and 'ckpt_last.pt' in out
    assert out == project.check('eval_as_math.py', '--out_dir=math_mini_14', '--operation=subtraction',
                                '--checkpoint=ckpt_last.pt'), 'one seed, one report'


def test_the_capitals_report_has_a_line_for_each(project):
    for folder in ('facts_mini_14', 'both_mini_14'):
        out, report = report_of(project, 'eval_capitals.py', f'--out_dir={folder}')
        assert sum('Capital of' in line for line in out.splitlines()) >= 50 and 'facts' in out
        assert max(map(len, out.splitlines())) <= 80 and out.index('samples right, x = none') < out.index('Capital of')
        assert len(report['questions']) == 50 and {q['task'] for q in report['questions']} == {'facts'}
    project.fails('eval_capitals.py', '--out_dir=math_mini_14',
                  says='no questions that are scored as facts: try eval_as_math.py')
    project.fails('eval_as_math.py', '--out_dir=facts_mini_14',
                  says='no questions that are scored as arithmetic: try eval_capitals.py')


def test_on_a_trained_checkpoint_the_scripts_say_what_the_plain_loop_says(project):
    """Greedy answers by GPT.generate and probabilities step by step, as this project's earlier evaluation had them."""
    options = ['--compile=False', '--max_iters=300', '--warmup_iters=20', '--batch_size=100',
               '--full_eval_interval=300',
               '--eval_interval=300', '--num_threads=1', '--n_embd=32', '--lr_decay_iters=300', '--out_dir=trained']
    project.check('train_with_eval.py', 'config/train_both_mini_28.py', *options)
    model, meta, *_ = load_model(project.folder / 'trained', ['ckpt_last.pt'])
    asked = ['--out_dir=trained', '--checkpoint=ckpt_last.pt', '--temperature=0', '--num_samples=2']
    reports = [report_of(project, script, *asked)[1] for script in ('eval_as_math.py', 'eval_capitals.py')]
    said = {q['prompt']: q for report in reports for q in report['questions']}
    assert len(said) == len(meta.questions) == 250
    right = 0
    for question in meta.questions[::3]:
        q, plain = said[question.prompt], plain_answer(model, meta.tokenizer, question, temperature=0)
        assert q['samples'] == [plain] * 2 and q['correct'] == 2 * is_right(question.answer, question.terminator, plain)
        assert q['prob'] == pytest.approx(plain_prob(model, meta.tokenizer, question), rel=1e-3)
        right += q['correct'] > 0
    assert right > 0, 'something has been learnt'


def test_a_model_folder_goes_by_three_names_and_one_of_a_sweep_is_sent_to_its_seeds(project):
    for script, folder in (('eval_as_math.py', 'math_mini_14'), ('eval_capitals.py', 'facts_mini_14')):
        out = project.check(script, f'--out_dir={folder}')
        assert out == project.check(script, folder) == project.check(script, '--model_folder', folder)
    (project.folder / 'sweeps/main/math_mini_14').mkdir(parents=True)
    (project.folder / 'sweeps/main/math_mini_14/seed_3.log').touch()
    (project.folder / 'math_mini_14').rename(project.folder / 'sweeps/main/math_mini_14/seed_3')
    for script in ('eval_as_math.py', 'eval_capitals.py', 'sample.py', 'plot_model.py'):
        project.fails(script, 'sweeps/main/math_mini_14',
                      says='choose one, e.g. --out_dir=sweeps/main/math_mini_14/seed_')


def test_the_wrong_capitals_are_summed_up(project):
    out, report = report_of(project, 'eval_capitals.py', 'facts_mini_14')
    said = [Counter(q['samples']).most_common(1)[0][0].strip() for q in report['questions']]
    wrong = [text for text, q in zip(said, report['questions']) if text.lower() != q['answer'].lower()]
    out = ' '.join(out.split())
    summary = re.search(r"wrong predictions: (\d+) of 50; another question's answer: (\d+)"
                        r"(?:; most frequent: .*? \((\d+)\))?", out)
    assert int(summary[1]) == len(wrong) and int(summary[3] or 1) == max(map(wrong.count, wrong))
    assert int(summary[2]) == sum(said in {q['answer'] for q in report['questions']} for said in wrong)


# -----------------------------------------------------------------------------
# sampling settings


def test_sampling_settings_are_those_of_the_run_unless_given(project):
    run = ['--num_samples=3', '--temperature=0.5', '--top_k=2', '--out_dir=own_sampling']
    project.check('train_with_eval.py', 'config/train_both_mini_14.py', *TINY, *run)
    for script in ('eval_as_math.py', 'eval_capitals.py'):
        _, report = report_of(project, script, '--out_dir=own_sampling')
        assert (report['num_samples'], report['temperature'], report['top_k'], report['seed']) == (3, 0.5, 2, 1337)
        out, report = report_of(project, script, '--out_dir=own_sampling', '--top_k=7', '--num_samples', '4',
                                '--seed=5')
        assert (report['num_samples'], report['temperature'], report['top_k'], report['seed']) == (4, 0.5, 7, 5)
        assert '4 samples each at temperature 0.5' in out
    # a checkpoint of nanoGPT does not say how to sample: the paper's settings
    checkpoint = torch.load(project.folder / 'own_sampling/ckpt.pt', weights_only=True)
    for key in ('num_samples', 'temperature', 'top_k'):
        del checkpoint['config'][key]
    torch.save(checkpoint, project.folder / 'own_sampling/ckpt.pt')
    _, report = report_of(project, 'eval_capitals.py', '--out_dir=own_sampling', '--checkpoint=ckpt.pt')
    assert (report['num_samples'], report['temperature'], report['top_k']) == (10, 0.01, 10)


def test_the_best_of_many_evaluations_says_of_how_many_and_what_the_last_has(project):
    folder = project.folder / 'chosen'
    shutil.copytree(project.folder / 'math_mini_14', folder)
    shutil.copy(folder / 'ckpt_last.pt', folder / 'ckpt_best_math.pt')
    row = pd.read_csv(folder / 'results.csv').iloc[-1]
    others = [{**row, 'iter': 10, 'math_acc': 0.5}, {**row, 'iter': 15, 'math_total': 0, 'math_acc': 0},
              {**row, 'iter': 20, 'math_acc': 0.25}]
    pd.DataFrame(others).to_csv(folder / 'results.csv', index=False)
    out = ' '.join(project.check('eval_as_math.py', 'chosen').split())
    assert 'is the best of 2 evaluations' in out and 'At the final one, iteration 20, 25.0% of all samples' in out
    assert 'evaluations' not in project.check('eval_as_math.py', 'chosen', '--checkpoint=ckpt_last.pt')
    (folder / 'results.csv').unlink()
    assert 'evaluations' not in project.check('eval_as_math.py', 'chosen')


def test_of_a_run_that_goes_on_the_last_evaluation_is_not_called_final(tmp_path, capsys):
    rows = pd.DataFrame([{**dict.fromkeys(CLASSIC_COLUMNS, 0), 'iter': it, 'add_total': total}
                         for it, total in ((0, 10), (4, 0))])
    rows.to_csv(tmp_path / 'temp.csv', index=False)
    print_choice(tmp_path / 'ckpt_best_math.pt', 'math')
    assert 'At the last one so far, iteration 0, 0.0% of all samples' in capsys.readouterr().out.replace('\n', ' ')
    rows.iloc[1:].to_csv(tmp_path / 'temp.csv', index=False)
    print_choice(tmp_path / 'ckpt_best_math.pt', 'math')
    assert capsys.readouterr().out == '', 'only the losses were estimated'


def test_key_value_is_key_equals_value(project):
    out = project.check('eval_as_math.py', '--out_dir=math_mini_14', '--operation=addition', '--seed=3',
                        '--json=a.json')
    assert out == project.check('eval_as_math.py', '--out_dir', 'math_mini_14', '--operation', 'addition',
                                '--seed', '3', '--json', 'a.json')


# -----------------------------------------------------------------------------
# sums beyond the training text


def test_every_sum_up_to_max_operand_is_asked_and_counted_in_its_group(project):
    options = ['--out_dir=math_mini_14', '--num_samples=2']
    out, report = report_of(project, 'eval_as_math.py', *options, '--max_operand=19')
    groups = {row['group']: row for row in report['totals']}
    assert {name: row['questions'] for name, row in groups.items()} == {
        'addition': 400, 'subtraction': 400, 'seen': 196, 'held out': 4, 'beyond': 600}
    assert sum(groups[name]['correct'] for name in ('seen', 'held out', 'beyond')) == sum(
        question['correct'] for question in report['questions'])
    for question in report['questions']:
        a, sign, b = re.fullmatch(r'<(\d+)([+-])(\d+)=', question['prompt']).groups()
        assert int(question['answer']) == (int(a) + int(b) if sign == '+' else int(a) - int(b))
        assert (question['held_out'] is None) == (max(int(a), int(b)) > 9)
    # seen and held-out questions are asked as without the option
    _, own = report_of(project, 'eval_as_math.py', *options)
    known = [question for question in report['questions'] if question['held_out'] is not None]
    before = {question['prompt']: question for question in own['questions']}
    assert len(before) == len(known) == 200
    assert all(question['prob'] == pytest.approx(before[question['prompt']]['prob'], rel=1e-3) for question in known)
    # the grid: a row of twenty cells for each operand, narrow enough for a terminal, those beyond marked
    rows = [line for line in out.splitlines() if re.match(r' +\d+ +\S', line) and '=' not in line]
    assert [int(row.split()[0]) for row in rows] == [*range(20), *range(20)]
    for a, row in enumerate(rows[:20]):
        assert len(row) <= 80 and row.count("'") == (10 if a <= 9 else 20) and row.count('[') == (a in (5, 7))
    assert "' beyond the training text" in ' '.join(out.split())
    # a screenful of wrong answers, the held-out sums first, and word of the others
    wrong = [line for line in out.splitlines() if ' predicted ' in line]
    more = int(re.search(r'and (\d+) more; --json', out)[1])
    assert len(wrong) == 25 and len(wrong) + more == sum(q['correct'] < 2 for q in report['questions'])
    assert all('[held out]' in line for line in wrong[:out.count('[held out]')]) and '[held out]' in out


def test_a_grid_too_large_for_a_screen_is_summed_up_by_digits(project):
    out, report = report_of(project, 'eval_as_math.py', '--out_dir=math_mini_14', '--num_samples=1', '--max_operand=29',
                            '--operation=addition')
    asked = {name: [q for q in report['questions'] if tuple(map(len, re.findall(r'\d+', q['prompt']))) == digits]
             for name, digits in (('1 and 1', (1, 1)), ('1 and 2', (1, 2)), ('2 and 1', (2, 1)), ('2 and 2', (2, 2)))}
    for name, questions in asked.items():
        assert f'{name}: {sum(q["correct"] for q in questions)} of {len(questions)} questions right' in out
    assert list(map(len, asked.values())) == [100, 200, 200, 400]


def test_a_dataset_of_larger_operands_has_its_own_held_out_sums(project):
    project.check('data/as_math/prepare.py', '--max_operand=11', '--held_out', '3,11', '--name=larger')
    project.check('train_with_eval.py', *TINY, '--dataset=larger', '--block_size=10', '--out_dir=larger')
    _, report = report_of(project, 'eval_as_math.py', '--out_dir=larger', '--max_operand=12', '--operation=subtraction')
    assert {row['group']: row['questions'] for row in report['totals']} == {
        'subtraction': 169, 'seen': 142, 'held out': 2, 'beyond': 25}
    project.fails('eval_as_math.py', '--out_dir=larger', '--max_operand=10', says="the dataset's own '<0+11='")


# -----------------------------------------------------------------------------
# summarize.py


def run_of(final, total=20, **columns):
    """A results.csv with one evaluation: of each task, `total` samples, of which as many are right as `final` says."""
    row = dict.fromkeys(CLASSIC_COLUMNS, 0.0) | {'train_loss': 1.0, 'n_params': 1}
    for task, right in final.items():
        row |= {f'{task}_correct': right, f'{task}_total': total}
    return pd.DataFrame([row | columns]).astype(float)


def test_a_summary_has_the_tasks_of_an_own_dataset_of_numbers_and_texts(capsys):
    runs = {seed: run_of({'squares': right, 'past tense': 20, 'facts': 20, 'heldout': 5}, seen_acc=0.75, math_total=20)
            for seed, right in ((1, 10), (2, 10))}
    print_table(summarize({'own': runs}), {'own': runs})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith('own, 0 iterations, seeds: 2')
    assert lines[2].split('  ')[1] == '75.0 (no spread)' and '25.0 (no spread)' in lines[2]
    assert lines[3:5] == ['  squares: 50.0 (no spread)', '  past tense: 100.0 (no spread)']
    print_comparison({'a': runs, 'b': runs}, ['a', 'b'])
    assert 'squares, %' in capsys.readouterr().out


def test_summaries_and_comparisons_fit_into_80_columns(capsys):
    sweep = read_sweep(REPO / 'results/paper')
    print_table(summarize(sweep), sweep)
    sweep = read_sweep(REPO / 'results/study')
    print_comparison(sweep, list(sweep)[-2:])
    out = capsys.readouterr().out
    assert ' minus ' in out and max(map(len, out.splitlines())) <= 80


def test_sums_that_cannot_be_asked_are_refused(project):
    project.fails('eval_as_math.py', '--out_dir=math_mini_14', '--max_operand=8', says="the dataset's own '<0+9='")
    project.fails('eval_as_math.py', '--out_dir=math_mini_14', '--max_operand=1000', says='at most 999')
    project.fails('eval_as_math.py', '--out_dir=math_mini_14', '--max_operand=x',
                  says='max_operand must be a whole number')
    project.fails('eval_as_math.py', '--out_dir=facts_mini_14', '--max_operand=19',
                  says='no questions that are scored as arithmetic: try')
    project.check('data/as_math/prepare.py', '--max_operand=2', '--held_out', '--name=few')
    project.check('train_with_eval.py', *TINY, '--dataset=few', '--out_dir=few_digits')
    project.fails('eval_as_math.py', '--out_dir=few_digits', '--max_operand=6', says="does not know '5', '6', ")
