"""Each kind of picture of a tiny run, of one that goes on, and a clear sentence where a picture lacks its data."""

import re
import runpy
import shutil
import sys
import tempfile

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPO, TINY
from little import little_model, paper_meta
from PIL import Image

from common import pictures
from common.answers import add_verdicts
from common.checkpoint import load_model
from common.errors import UserError
from common.gpt2 import save_gpt2
from common.questions import Question, arithmetic_questions, short_names
from common.results import CLASSIC_COLUMNS
from plot_results import (HELD_OUT, LOSS, PROBABILITY, add_legend, curves_of, draw_capacity, draw_overlay, draw_panels,
                          draw_seeds, read_curves, read_panels, title_of)
from study.datasets import base_questions

MATH, FACTS, BOTH = ('math_mini_14', 'facts_mini_14', 'both_mini_14')


def shows(path):
    """An image file as (width, height), after a look that something is drawn on it."""
    with Image.open(path) as image:
        assert len(image.convert('RGB').getcolors(10**7)) > 20
        return image.size


def table_of(questions, said, prob=0.5):
    """A graded table in which the model always says said[i]."""
    rows = [(q.task, q.prompt, q.answer, q.group, 10, 10 * (text == q.answer), prob, text)
            for q, text in zip(questions, said)]
    columns = 'task prompt answer group samples correct prob said'.split()
    return add_verdicts(pd.DataFrame(rows, columns=columns), [q.terminator for q in questions])


def attention():
    """The function of plot_model.py, which cannot be imported, because it is a script that runs from top to bottom."""
    namespace = {'torch': torch}
    source = (REPO / 'plot_model.py').read_text()
    exec(re.search(r'^def attention.*?(?=\n\n\n)', source, re.DOTALL | re.MULTILINE)[0], namespace)
    return namespace['attention']


def draw(table):
    """The axes on which one model's graded table is drawn, those of the scale left out."""
    figure, draw_tables = pictures.model_figure([('a model', table)])
    draw_tables([table], ['a model'])
    return [ax for ax in figure.axes if ax.get_label() != '<colorbar>']


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pictures.plt.close('all')


# -----------------------------------------------------------------------------
# what is drawn


def test_a_grid_says_what_the_model_says_where_it_is_asked_and_marks_what_is_wrong_or_held_out():
    """Cell (a, b) holds answer and probability of a-b; a box marks each wrong one, two frames each held-out one."""
    questions = arithmetic_questions(held_out=[(3, 8)])[100:]
    said = [q.answer if q.prompt != '<4-6=' else '7' for q in questions]
    table = table_of(questions, said)
    table['prob'] = np.arange(100) / 100
    axes = draw(table)[0]
    cells = {tuple(map(round, text.get_position())): text for text in axes.texts}
    for i, text in enumerate(said):
        a, b = divmod(i, 10)
        assert cells[b, a].get_text() == text.replace('-', '−')
        assert (cells[b, a].get_bbox_patch() is not None) == ((a, b) == (4, 6))
    assert np.allclose(axes.images[0].get_array(), np.arange(100).reshape(10, 10) / 100)
    frames = {tuple(path.vertices[:4].mean(0).round()) for collection in axes.collections
              for path in collection.get_paths()}
    assert frames == {(3, 8), (8, 3)}
    assert cells[0, 2].get_color() == 'black' and cells[9, 9].get_color() == 'white', 'on a pale and on a dark cell'
    assert axes.get_title() == 'subtraction\ntraining 97 of 98 right, held out 2 of 2'
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('b', 'a')


def test_prompts_of_two_numbers_are_a_grid_whatever_the_operation():
    questions = [Question('times', f'<{a}*{b}=', str(a * b)) for a in range(13) for b in range(13)]
    axes = draw(table_of(questions, [q.answer if q.prompt != '<12*12=' else '10044' for q in questions]))[0]
    cells = {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}
    assert cells[11, 12] == '132' and cells[12, 12] == '100…', 'a longer prediction is not taken for a shorter one'


def test_prompts_in_which_one_number_never_varies_are_bars():
    questions = [Question('square', f'<{a}^2=', str(a * a)) for a in range(20)]
    assert not draw(table_of(questions, [q.answer for q in questions]))[0].images


def test_a_grid_too_large_for_numbers_still_marks_every_question_that_its_title_does_not_count():
    questions = arithmetic_questions((), 20)[:441]
    axes = draw(table_of(questions, [q.answer if q.prompt not in ('<7+20=', '<0+3=') else '9' for q in questions]))[0]
    assert axes.get_title() == 'addition\ntraining 439 of 441 right' and not axes.texts
    assert {(a, b) for b, a in axes.collections[-1].get_offsets().tolist()} == {(7, 20), (0, 3)}


@pytest.mark.parametrize('held_out', [[], [(3, 8)]])
@pytest.mark.parametrize('said, max_operand, words', [
    (None, 9, ['number: prediction']), ('7', 9, ['number: prediction', 'orange: wrong']), ('7', 20, ['orange: wrong']),
    (None, 20, [])])
def test_a_caption_explains_what_is_drawn_and_nothing_else(held_out, said, max_operand, words):
    questions = arithmetic_questions(held_out, max_operand)
    figure, _ = pictures.model_figure([('a model', table_of(questions, [said or q.answer for q in questions]))])
    expected = words + (['frame: held out'] if held_out else [])
    marks = figure.axes[-1].get_xlabel().removeprefix('colour: probability of the right answer').strip()
    assert marks == '; '.join(expected)


def test_where_digits_are_letters_no_axis_is_called_by_one_of_them():
    tables = [table_of(questions, [q.answer for q in questions])
              for questions in (base_questions(base, []) for base in (12, 24))]
    figure, draw_both = pictures.model_figure([('', table) for table in tables])
    draw_both(tables, ['base 12', 'base 24'])
    *grids, bar = figure.axes
    assert {ax.get_ylabel() for ax in grids} == {'first'} and {ax.get_xlabel() for ax in grids} == {'second'}
    assert bar.get_xlabel().endswith('\nletters: prediction')  # those of base 12; base 24's cells are too small
    figure, _ = pictures.model_figure([('base 24', tables[1])])
    assert 'prediction' not in figure.axes[-1].get_xlabel()


def test_a_grid_to_which_each_model_gives_a_row_of_its_own_has_its_predictions_explained():
    tables = [table_of(questions, [q.answer for q in questions]) for questions in (
        [q for q in arithmetic_questions() if q.prompt.startswith('<7+')],
        [q for q in arithmetic_questions() if q.prompt.endswith('+7=')])]
    figure, _ = pictures.model_figure([('', table) for table in tables])
    assert '\nnumber: prediction' in figure.axes[-1].get_xlabel()


def test_a_legend_stays_inside_its_figure():
    figure, axes = pictures.plt.subplots(figsize=(5, 3), layout='constrained')
    for n in (2, 9):
        add_legend(figure, {f'{i} of the curves of a run': axes.plot(range(2))[0] for i in range(n)})
        figure.draw_without_rendering()
        box = figure.legends[-1].get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert [legend._ncols for legend in figure.legends] == [2, 2]


def test_bars_are_as_long_as_the_probabilities_and_wrong_answers_stand_beside_them():
    questions = [q for q in paper_meta().questions if q.task == 'facts']
    table = table_of(questions, ['Rome' if 'Spain' in q.prompt else q.answer for q in questions])
    table['prob'] = np.linspace(0.1, 0.9, 50)
    table.loc[49, ['said', 'right']] = ' \n', False
    axes = draw(table)[0]
    assert np.allclose([bar.get_width() for bar in axes.patches], table.prob)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0] == 'France: Paris' and len(names) == 50
    assert [text.get_text() for text in axes.texts] == ['Rome', '(nothing)']
    assert round(axes.texts[0].get_position()[1]) == names.index('Spain: Madrid')


def test_every_one_of_many_bars_has_its_name_and_its_wrong_answer_and_those_held_out_are_framed():
    questions = [Question('animals', f'The {i} says ', f'sound {i}', 'held out' if i == 77 else 'seen', ' \n')
                 for i in range(150)]
    axes = draw(table_of(questions, [f'noise {i}' for i in range(150)]))
    labels = [label for ax in axes for label in ax.get_yticklabels()]
    assert [label.get_text() for label in labels] == [f'{i}: sound {i}' for i in range(150)]
    assert [text.get_text() for ax in axes for text in ax.texts] == [f'noise {i}' for i in range(150)]
    assert [i for i, label in enumerate(labels) if label.get_bbox_patch()] == [77]
    assert ['frame: held out' in ax.get_xlabel() for ax in axes] == [False, True, False]
    assert [ax.get_title() for ax in axes] == ['animals\ntraining 0 of 149 right, held out 0 of 1', '', '']


def test_answers_are_in_the_order_in_which_they_were_learnt_for_good_and_those_held_out_apart():
    questions = [q for q in arithmetic_questions(held_out=[(0, 1)], max_operand=1) if q.task == 'add']
    right = {'<1+1=': [0, 1, 1], '<0+0=': [1, 1, 0], '<0+1=': [0, 0, 0], '<1+0=': [0, 0, 1]}
    tables = [table_of(questions, [q.answer if right[q.prompt][i] else 'x' for q in questions]).assign(iter=10 * i)
              for i in range(3)]
    answers = pd.concat(tables)
    answers['prob'] = answers.correct / 10
    figure = pictures.draw_answers([('a model', answers)])
    held_out, addition = figure.axes[:2]
    assert [label.get_text() for label in held_out.get_yticklabels()][::-1] == ['1+0', '0+1']
    drawn = {axes.get_ylabel(): axes.collections[0].get_array().reshape(2, 3).tolist() for axes in (held_out, addition)}
    assert drawn == {'held out': [[0, 0, 1], [0, 0, 0]], 'addition': [[0, 1, 1], [1, 1, 0]]}


def test_runs_with_other_questions_share_one_order():
    """Names stay with their questions, also where a second run adds some to a task; the order is the mean's."""
    small, large = (table_of(questions, [q.answer for q in questions]).assign(iter=0) for questions in
                    (arithmetic_questions((), 1), arithmetic_questions((), 2)))
    late = large.assign(iter=500, right=large.prompt != '<0+0=')
    panels = pictures.answer_panels([small, pd.concat([large, late])])
    assert list(panels) == ['addition', 'subtraction'] and [len(part) for part in panels.values()] == [9, 9]
    for part in panels.values():
        assert all(prompt == f'<{name}=' for (_, prompt), name in zip(part.index, part.name))
    assert panels['addition'].name.iloc[-1] == '0+0'


def test_prompts_are_shortened_to_what_tells_them_apart():
    assert short_names(['Capital of France is ', 'Capital of the USA is ']) == ['France', 'the USA']
    assert short_names(['<5+7=', '<7-5=']) == ['5+7', '7-5'] and short_names(['<5+7=']) == ['<5+7=']
    assert short_names(['The cat says ', 'The cow says ']) == ['cat', 'cow'], 'words stay whole'


def results_of(held_out=None, **tasks):
    """A results.csv of two evaluations: the samples of each task that are right at the second, and all its samples.

    A task's name ends in _words if its answers are texts. held_out: how many are held out; None: no such column.
    """
    counts = {'add': (0, 0), 'sub': (0, 0), **({'heldout': held_out} if held_out else {}), **tasks}
    table = {'iter': [0.0, 250.0], 'val_loss': [3.0, 0.5], 'train_loss': [3.0, 0.5], 'n_params': 1582.0,
             'heldout_prob': [0.0, 0.25]}
    for name, (right, total) in counts.items():
        table |= {f'{name}_correct': [0.0, right], f'{name}_total': float(total)}
    words = [counts[name] for name in counts if name == 'facts' or name.endswith('_words')]
    numbers = [counts[name] for name in counts if name not in ('facts', 'heldout') and not name.endswith('_words')]
    right, total = (sum(count[i] for count in numbers) for i in (0, 1))
    table |= {'facts_correct': [0.0, sum(n for n, _ in words)], 'facts_total': float(sum(n for _, n in words)),
              'math_acc': [0.0, right / max(total, 1)], 'math_total': float(total), 'facts_acc': 0.0}
    return pd.DataFrame(table)


def final_curves(operation='both', **tasks):
    curves = curves_of(results_of(**tasks), operation).drop(columns=LOSS)
    return {name: pytest.approx(value) for name, value in curves.iloc[-1].items()}


def test_a_task_of_ones_own_is_not_drawn_a_second_time_as_facts():
    assert final_curves(held_out=(0, 0), mul=(20, 40), past_words=(5, 50)) == {
        'training accuracy: mul': 50, 'training accuracy: past_words': 10}
    assert final_curves(held_out=(0, 0), facts=(30, 60), mul=(20, 40), past_words=(5, 50)) == {
        'training accuracy: mul': 50, 'training accuracy: past_words': 10, 'training accuracy: capitals': 50}


def test_a_curve_of_training_questions_has_no_held_out_ones_or_says_so():
    assert final_curves(held_out=(40, 40), add=(40, 1000), sub=(0, 1000)) == {
        'training accuracy: arithmetic': 0, HELD_OUT: 100, PROBABILITY: 25}
    assert final_curves(held_out=(40, 40), mul=(60, 80)) == {'training accuracy: mul': 50, HELD_OUT: 100,
                                                             PROBABILITY: 25}
    assert final_curves(held_out=(40, 40), mul=(60, 80), past_words=(5, 50)) == {
        'training accuracy': 100 * 25 / 90, 'training and held-out accuracy: mul': 75,
        'training and held-out accuracy: past_words': 10, HELD_OUT: 100, PROBABILITY: 25}
    assert final_curves('math', held_out=(40, 40), add=(40, 1000), sub=(0, 1000)) == {
        'training and held-out accuracy: addition': 4, 'training and held-out accuracy: subtraction': 0,
        HELD_OUT: 100, PROBABILITY: 25}


def test_no_two_curves_of_a_panel_look_alike():
    results = results_of(held_out=(40, 40), add=(40, 1000), sub=(0, 1000), mul=(60, 80), facts=(30, 60))
    _, styles = read_curves([('', [results], None)], 'both')
    assert 'training accuracy' in styles and len({*styles.values()}) == len(styles) > 5


def test_an_operation_leaves_the_papers_other_tasks_out_and_no_own_one():
    tasks = dict(held_out=(0, 0), add=(10, 100), sub=(10, 100), facts=(5, 50), mul=(1, 10))
    assert [*final_curves('facts', **tasks)] == ['training accuracy: mul', 'training accuracy: capitals']
    assert [*final_curves('math', **tasks)] == [f'training accuracy: {name}'
                                                for name in ('addition', 'subtraction', 'mul')]
    assert [*final_curves('facts', held_out=(4, 40), add=(10, 100), facts=(5, 50))] == ['training accuracy: capitals']
    assert [*final_curves(add=(10, 100), sub=(10, 100))] == ['accuracy: addition',
                                                             'accuracy: subtraction'], 'who knows?'


def test_an_axis_names_a_probability_only_where_one_is_drawn():
    for tasks, words in ((dict(facts=(5, 50)), 'accuracy (%)'),
                         (dict(add=(9, 99), held_out=(1, 2)), 'accuracy, or probability (%)')):
        figure = draw_panels([('a run', [results_of(**tasks)], [])], 'both')
        assert figure.axes[0].get_ylabel() == words


def test_a_legend_shows_which_curves_have_a_band():
    runs = [results_of(add=(n, 100), held_out=(n // 9, 10)) for n in (20, 50, 90)]
    figure = draw_panels([('three seeds', runs, [])], 'both')
    legend = figure.legends[0]
    names = [text.get_text() for text in legend.get_texts()]
    banded = {name: hasattr(handle, 'get_hatch') for name, handle in zip(names, legend.legend_handles)}
    assert banded == {'training accuracy: arithmetic': True, HELD_OUT: False, PROBABILITY: True, LOSS: False}
    assert len(figure.axes[0].collections) == 2 and 'band: its 95% interval' in legend.get_title().get_text()
    alone = draw_panels([('one run', runs[:1], [])], 'both')
    assert not alone.axes[0].collections and not alone.legends[0].get_title().get_text()


def test_long_names_beside_one_another_do_not_touch():
    run = results_of(add=(9, 10), held_out=(0, 4))
    names = ['a_folder_' + 40 * 'x', 'arithmetic, width 28, dataset=rounds_1, weight_decay=0.1', 'b' * 60]
    figure = draw_panels([(f'{name}\n(1,582 parameters)', [run], []) for name in names], 'both')
    figure.draw_without_rendering()
    sweep = {f'math_mini_14,weight_decay={i},dataset=rounds_{i * 10**9},learning_rate=0.1': {1: run} for i in (1, 2, 3)}
    capacity = draw_capacity(sweep)
    capacity.draw_without_rendering()
    for drawn in (figure, capacity):
        boxes = [ax.title.get_window_extent() for ax in drawn.axes[:3]]
        assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:])) and boxes[0].x0 > 0
        assert boxes[2].x1 < drawn.bbox.width


def test_several_widths_lie_over_one_another_in_one_axis_for_each_measure():
    panels = [(f'width {n}\n({n} parameters)', [results_of(add=(n, 100), held_out=(n, 80))], []) for n in (14, 28, 56)]
    figure = draw_overlay(panels, 'both')
    for ax, name in zip(figure.axes, ('training accuracy: arithmetic (%)', f'{HELD_OUT} (%)', f'{PROBABILITY} (%)')):
        assert ax.get_title() == name and len(ax.lines) == 3
    assert [line.get_ydata()[-1] for line in figure.axes[1].lines] == [17.5, 35, 70]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f'width {n} ({n} parameters)'
                                                                           for n in (14, 28, 56)]


def test_each_measure_of_a_task_of_ones_own_has_the_scale_that_fits_it_where_runs_lie_over_one_another():
    panels = [(f'run {n}', [results_of(held_out=(0, 10), mul=(n, 40))], []) for n in (10, 30)]
    limits = {ax.get_title(): ax.get_ylim() for ax in draw_overlay(panels, 'both').axes}
    assert limits == {'training accuracy: mul (%)': (-4, 104), f'{HELD_OUT} (%)': (-4, 104),
                      f'{PROBABILITY} (%)': (-4, 104),
                      f'{LOSS} (nats per character)': (0, 1)}


def test_a_title_names_what_is_learnt_and_the_width_and_says_if_a_run_is_unfinished(tmp_path):
    runs = {1: results_of(), 2: results_of()}
    assert title_of('math_mini,n_embd=28', runs) == 'arithmetic, width 28\n(1,582 parameters, 2 seeds)'
    assert title_of('math_mini_14,dropout=0.1',
                    {None: results_of()}) == 'arithmetic, width 14, dropout=0.1\n(1,582 parameters)'
    results_of(add=(1, 2)).to_csv(tmp_path / 'temp.csv', index=False)
    (title, *_), = read_panels([tmp_path])
    assert title == f'{tmp_path.name}\n(1,582 parameters, unfinished)'


def test_final_accuracies_of_own_tasks_are_those_of_training_questions_and_each_is_drawn_once():
    run = results_of(held_out=(40, 40), mul=(60, 80), past_words=(5, 50)).assign(seen_acc=25 / 90)
    figure = draw_capacity({'math_mini,n_embd=28': {1: run}, 'math_mini,n_embd=56': {1: run.assign(n_params=9999.0)}})
    assert [ax.get_title() for ax in figure.axes] == ['arithmetic (1 seed)']
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['training accuracy', HELD_OUT]


# -----------------------------------------------------------------------------
# the inside of a model


def inside(folder, monkeypatch):
    """The figure that plot_model.py, a script that runs from top to bottom, draws of a committed model folder."""
    figures = []
    monkeypatch.setattr(pictures, 'save', lambda figure, output: figures.append(figure))
    monkeypatch.setattr(sys, 'argv', ['plot_model.py', f'--out_dir={REPO}/results/{folder}'])
    monkeypatch.setattr(sys, 'excepthook', sys.excepthook)
    with pictures.plt.rc_context(), torch.enable_grad():  # what it sets is set back
        runpy.run_path(str(REPO / 'plot_model.py'))
        figures[0].draw_without_rendering()
    return figures[0]


def test_every_letter_inside_a_model_of_capitals_can_be_read(monkeypatch):
    """Each character names its row of wte, and no two letters lie on one another, there or on the components."""
    axes = {ax.get_title().split(',')[0]: ax for ax in inside('facts_mini_14', monkeypatch).axes}
    embeddings, wte = axes['embeddings on their first two principal components'], axes['wte']
    assert len(wte.get_yticklabels()) == len(embeddings.texts) == 51
    for letters in (embeddings.texts, wte.get_yticklabels(), axes['Capital␣of␣Zambia␣is'].get_xticklabels()):
        boxes = [letter.get_window_extent() for letter in letters if letter.get_text() not in ('␣', '↵')]
        centres = np.array([(box.x0 + box.x1, box.y0 + box.y1) for box in boxes]) / 2
        size = np.median([max(box.width, box.height) for box in boxes])
        distances = np.linalg.norm(centres[:, None] - centres, axis=-1) + 1e9 * np.eye(len(boxes))
        assert distances.min() > 0.7 * size


def test_attention_has_a_scale_and_weights_have_axes_inside_a_model(monkeypatch):
    axes = inside('math_mini_14', monkeypatch).axes
    assert [ax.get_xlabel() for ax in axes if ax.get_label() == '<colorbar>'] == [
        'attention', 'weight, divided by max |w| of its image']
    labels = {ax.get_title().split(',')[0]: (ax.get_xlabel(), ax.get_ylabel()) for ax in axes}
    assert labels['wte'] == ('dimension', 'character') and labels['wpe'] == ('dimension', 'position')
    assert {labels[name] for name in ('attn.c_attn', 'attn.c_proj', 'mlp.c_fc', 'mlp.c_proj')} == {('input', 'output')}


def test_a_component_points_the_same_way_on_every_processor(monkeypatch):
    """numpy's singular vectors may have either sign."""
    def points(sign):
        monkeypatch.setattr(np.linalg, 'svd', lambda *args, **kwargs: (sign * svd(*args, **kwargs)[0],
                                                                       *svd(*args, **kwargs)[1:]))
        return np.array([text.get_position() for text in inside('math_mini_14', monkeypatch).axes[0].texts])
    svd = np.linalg.svd
    assert np.allclose(points(1), points(-1))


def test_attention_is_that_of_the_model():
    """The attention that plot_model.py draws, multiplied with the values, is what the attention module computes."""
    model, ids = little_model(17, std=0.3, n_head=1), [3, 1, 4, 1, 5]
    seen = []
    hooks = [block.attn.c_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0][0]))
             for block in model.transformer.h]
    values = []
    hooks += [block.attn.c_attn.register_forward_hook(lambda module, args, out: values.append(out[0, :, -16:]))
              for block in model.transformer.h]
    with torch.no_grad():
        maps = attention()(model, ids)
    assert len(maps) == 2
    for weights, value, y in zip(maps, values, seen):
        torch.testing.assert_close(weights @ value, y)


# -----------------------------------------------------------------------------
# the commands


def test_every_kind_of_picture_of_a_tiny_run(project):
    project.check('eval_as_math.py', f'--out_dir={MATH}', '--plot')
    project.check('eval_as_math.py', f'--out_dir={MATH}', '--max_operand=19', '--num_samples=1',
                  f'--output={MATH}/large.svg')
    project.check('eval_capitals.py', f'--out_dir={BOTH}', '--plot')
    project.check('plot_model.py', f'--out_dir={FACTS}')
    project.check('plot_results.py', '--answers', '--model_folder', BOTH)
    project.check('plot_results.py', '--answers', '--logx', '--model_folder', MATH, FACTS, '--output=all.pdf')
    for picture in (f'{MATH}/grid.png', f'{BOTH}/facts.png', f'{FACTS}/model.png', f'{BOTH}/answers.png'):
        shows(project.folder / picture)
    assert (project.folder / MATH / 'large.svg').read_text().rstrip().endswith('</svg>')
    assert (project.folder / 'all.pdf').read_bytes().startswith(b'%PDF')


def test_a_film_names_the_iteration_of_each_run_and_the_end_of_none_before_it(tmp_path, monkeypatch):
    questions, titles = arithmetic_questions((), 1), []
    runs = [pd.concat([table_of(questions, ['1'] * 8).assign(iter=i) for i in iters])
            for iters in ([0, 250, 500], [0, 250])]

    def recorded(models):
        figure, draw = model_figure(models)
        return figure, lambda tables, names: (titles.append(names), draw(tables, names))
    model_figure = pictures.model_figure
    monkeypatch.setattr(pictures, 'model_figure', recorded)
    pictures.film([('long', runs[0]), ('short', runs[1])], tmp_path / 'film.gif')
    first, *later = [[name.split('\n', 1)[1] for name in names] for names in titles]
    assert first == later[-1] == ['iteration 500, the last evaluation', 'iteration 250, the last evaluation']
    assert later[:2] == [['iteration 0', 'iteration 0'], ['iteration 250', 'iteration 250, the last evaluation']]


def test_a_film_without_a_temporary_folder_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'nowhere'))
    with pytest.raises(UserError, match='cannot write .*film.gif: No such file'):
        pictures.film([('one', table_of(arithmetic_questions((), 1), ['1'] * 8).assign(iter=0))], tmp_path / 'film.gif')


def test_a_film_of_other_tasks_side_by_side_has_both_titles():
    facts = [Question('facts', f'Capital of {i} is ', 'X', 'seen', ' \n') for i in range(3)]
    tables = [table_of(questions, [q.answer for q in questions]) for questions in (arithmetic_questions((), 1), facts)]
    figure, draw_tables = pictures.model_figure([('one', tables[0]), ('other', tables[1])])
    draw_tables(tables, ['one', 'other'])
    assert {'one', 'other'} == {ax.get_title().split('\n')[0] for ax in figure.axes if ax.get_visible()} & {'one',
                                                                                                            'other'}


def seeds_of(project, name='config'):
    """A config's folder of two seeds, and their logs, as sweep.py leaves them; returns the folder."""
    folder = project.folder / name
    for seed, right in ((1337, {'<0+0=', '<5+7='}), (1338, {'<0+0='})):
        shutil.copytree(project.folder / MATH, folder / f'seed_{seed}')
        (folder / f'seed_{seed}.log').write_text('iter 0')
        answers = pd.read_csv(folder / f'seed_{seed}/answers.csv.gz', keep_default_na=False)
        is_right = answers.prompt.isin(right)
        answers.assign(correct=2 * is_right, said=answers.answer.astype(str).where(is_right, 'x')).to_csv(
            folder / f'seed_{seed}/answers.csv.gz', index=False)
    return folder


def test_questions_over_seeds_are_always_sometimes_or_never_right(project):
    folder = seeds_of(project)
    out = project.check('plot_results.py', '--answers', folder)
    assert re.search(r'always right +never +sometimes\n.*\nadd +held out +0 +1 +1\n +training +1 +97 +0\n', out), out
    shows(folder / 'answers.png')
    figure = draw_seeds(read_panels([str(folder)]))
    cells = {tuple(map(round, text.get_position())): text.get_text() for text in figure.axes[0].texts}
    assert (cells[0, 0], cells[7, 5], cells[5, 7]) == ('2', '1', '0')
    assert figure.axes[0].get_title() == 'addition\ntraining 1 of 98 always right, held out 0 of 2'
    project.fails('plot_results.py', '--film', folder, says='choose a seed of')


def test_answers_of_models_that_hold_out_different_questions_are_not_drawn_as_one(project):
    """Their rows are the same in all columns, so training questions of one would be shown as held out."""
    other = shutil.copytree(project.folder / MATH, project.folder / 'other')
    answers = pd.read_csv(other / 'answers.csv.gz', keep_default_na=False)
    held_out = answers.prompt.isin(['<3+4=', '<4+3=', '<3-4=', '<4-3='])
    answers.assign(group=np.where(held_out, 'held out', 'seen')).to_csv(other / 'answers.csv.gz', index=False)
    project.fails('plot_results.py', '--answers', '--model_folder', FACTS, MATH, 'other',
                  says=f'{MATH} and other hold out different questions')
    folder = seeds_of(project, 'unlike')
    shutil.copy(other / 'answers.csv.gz', folder / 'seed_1338')
    project.fails('plot_results.py', '--answers', folder, says='seed_1338 hold out different questions')


def test_answers_of_several_models_say_that_their_order_is_the_mean_over_the_models():
    questions = arithmetic_questions((), 1)
    answers = table_of(questions, [q.answer for q in questions]).assign(iter=0)
    labels = [pictures.draw_answers([('a model', answers)] * n).get_supylabel() for n in (1, 2)]
    assert ['mean over the models' in label for label in labels] == [False, True]


def test_a_folder_is_named_in_any_of_three_ways_and_logs_beside_seeds_are_no_folders(project):
    folder = seeds_of(project)
    everything = sorted(folder.glob('seed_*'))
    assert len(everything) == 4
    pages = [project.check('plot_results.py', *how, f'--output={i}.png') and (project.folder / f'{i}.png').read_bytes()
             for i, how in enumerate(([*everything], ['--model_folder', *everything], ['--out_dir', *everything]))]
    assert pages[0] == pages[1] == pages[2]
    project.fails('plot_results.py', says='name model folders')


def test_a_picture_does_not_say_which_version_drew_it(tmp_path):
    figure, _ = pictures.plt.subplots()
    pictures.save(figure, tmp_path / 'a.png')
    assert b'Software' not in (tmp_path / 'a.png').read_bytes()


def test_a_film_begins_with_the_end_and_goes_through_all_evaluations(project):
    out = project.check('plot_results.py', '--film', '--model_folder', MATH)
    assert out.startswith('drawing 4 frames\n') and f'wrote {MATH}/film.gif' in out and f'wrote {MATH}/film.png' in out
    with Image.open(project.folder / MATH / 'film.gif') as gif:
        assert gif.n_frames == 4  # the end at first, then 0, 2, 4
        frames = []
        for i in range(4):
            gif.seek(i)
            frames.append(np.asarray(gif.convert('RGB'), dtype=int))
            assert gif.info['duration'] == (2500 if i in (0, 3) else 160), 'it holds where it begins and ends'
    assert np.abs(frames[0] - frames[3]).mean() < np.abs(frames[0] - frames[1]).mean()
    shows(project.folder / MATH / 'film.png')
    project.fails('plot_results.py', '--film', '--model_folder', MATH, '--output=x.png',
                  says='cannot write x.png: use .gif')
    project.fails('plot_results.py', '--film', '--answers', '--model_folder', MATH, says='not allowed with')


def test_the_first_evaluation_of_a_run_that_goes_on_can_be_drawn(project):
    folder = project.folder / 'going_on'
    shutil.copytree(project.folder / MATH, folder)
    pd.read_csv(folder / 'results.csv').head(1).to_csv(folder / 'temp.csv', index=False)
    answers = pd.read_csv(folder / 'answers.csv.gz')
    answers[answers.iter == 0].to_csv(folder / 'answers.csv.gz', index=False)
    for options in ([], ['--answers', '--logx']):
        project.check('plot_results.py', *options, '--model_folder', 'going_on', f'--output={len(options)}.png')
        shows(project.folder / f'{len(options)}.png')


def test_the_eleven_classic_columns_give_curves_and_a_clear_sentence_for_the_rest(project):
    folder = project.folder / 'classic'
    folder.mkdir()
    pd.read_csv(project.folder / BOTH / 'results.csv')[list(CLASSIC_COLUMNS)].to_csv(folder / 'results.csv',
                                                                                     index=False)
    project.check('plot_results.py', '--model_folder', 'classic', BOTH, '--output=both.png')
    shows(project.folder / 'both.png')
    for kind in ('--answers', '--film'):
        project.fails('plot_results.py', kind, '--model_folder', 'classic', says='no answers.csv.gz in classic')
    project.fails('plot_model.py', '--out_dir=classic', says='no ckpt.pt in classic')


def test_the_inside_of_several_layers_has_a_row_for_each(project):
    project.check('train_with_eval.py', f'config/train_{BOTH}.py', *TINY, '--n_layer=2', '--n_head=2', '--out_dir=deep')
    project.check('plot_model.py', '--out_dir=deep', '--output=deep.png')
    project.check('train_with_eval.py', f'config/train_{BOTH}.py', *TINY, '--n_layer=3', '--n_head=2',
                  '--out_dir=deeper')
    project.check('plot_model.py', '--out_dir=deeper', '--output=deeper.png')
    assert shows(project.folder / 'deeper.png')[1] > shows(project.folder / 'deep.png')[1] + 300


# -----------------------------------------------------------------------------
# tools of others


def test_an_exported_folder_opens_in_transformerlens_with_equal_logits_and_attention(project):
    """Its hooks see the attention that plot_model.py draws. That it opens in transformers is in test_gpt2.py."""
    bridge = pytest.importorskip('transformer_lens.model_bridge',
                                 reason='pip install transformer_lens').TransformerBridge
    pytest.importorskip('transformers', reason='pip install transformers')
    model, meta, _, _ = load_model(project.folder / MATH, ['ckpt_last.pt'])
    save_gpt2(model, meta, project.folder / 'exported')
    theirs = bridge.boot_transformers(str(project.folder / 'exported'))
    ids = torch.tensor([meta.tokenizer.encode('<5+7=12>\n')])
    assert theirs.tokenizer('<5+7=12>\n')['input_ids'] == ids[0].tolist()
    with torch.no_grad():
        logits, cache = theirs.run_with_cache(ids)
        torch.testing.assert_close(logits, model(ids, ids)[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(cache['blocks.0.attn.hook_pattern'][0, 0], attention()(model, ids[0].tolist())[0])
