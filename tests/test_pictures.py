"""Each kind of picture from a tiny run, from a run that goes on, and a clear sentence where a picture lacks its data."""

import re
import shutil

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
from common.gpt2 import save_gpt2
from common.questions import arithmetic_questions
from common.results import CLASSIC_COLUMNS

MATH, FACTS, BOTH = ('math_mini_14', 'facts_mini_14', 'both_mini_14')


def shows(path):
    """An image file as (width, height), after a look that something is drawn on it."""
    with Image.open(path) as image:
        assert len(image.convert('RGB').getcolors(10**7)) > 20
        return image.size


def table_of(questions, said, prob=0.5):
    """A graded table in which the model always says said[i]."""
    rows = [(q.task, q.prompt, q.answer, q.group, 10, 10 * (text == q.answer), prob, text) for q, text in zip(questions, said)]
    return add_verdicts(pd.DataFrame(rows, columns='task prompt answer group samples correct prob said'.split()))


def attention():
    """The function of plot_model.py, which cannot be imported, because it is a script that runs from top to bottom."""
    namespace = {'torch': torch}
    source = (REPO / 'plot_model.py').read_text()
    exec(re.search(r'^def attention.*?(?=\n\n\n)', source, re.DOTALL | re.MULTILINE)[0], namespace)
    return namespace['attention']


# -----------------------------------------------------------------------------
# what is drawn


def test_a_grid_says_what_the_model_says_where_it_is_asked_and_marks_what_is_wrong_or_held_out():
    """Cell (a, b) holds the answer and the probability of a-b; a box marks each wrong one, two frames each held-out one."""
    questions = arithmetic_questions(held_out=[(3, 8)])[100:]
    said = [q.answer if q.prompt != '<4-6=' else '7' for q in questions]
    table = table_of(questions, said)
    table['prob'] = np.arange(100) / 100
    figure, axes = pictures.plt.subplots()
    pictures.draw_task(axes, table)
    cells = {tuple(map(round, text.get_position())): text for text in axes.texts}
    for i, text in enumerate(said):
        a, b = divmod(i, 10)
        assert cells[b, a].get_text() == text.replace('-', '−')
        assert (cells[b, a].get_bbox_patch() is not None) == ((a, b) == (4, 6))
    assert np.allclose(axes.images[0].get_array(), np.arange(100).reshape(10, 10) / 100)
    frames = {tuple(path.vertices[:4].mean(0).round()) for collection in axes.collections for path in collection.get_paths()}
    assert frames == {(3, 8), (8, 3)}
    assert cells[0, 2].get_color() == 'black' and cells[9, 9].get_color() == 'white', 'on a pale and on a dark cell'
    assert axes.get_title() == 'subtraction: seen 97 of 98 right, held out 2 of 2'
    pictures.plt.close(figure)


@pytest.mark.parametrize('held_out', [[], [(3, 8)]])
@pytest.mark.parametrize('said, max_operand, words', [
    (None, 9, 'number: what the model says'), ('7', 9, 'number: what the model says (orange box: wrong)'), ('7', 20, '')])
def test_a_caption_explains_what_is_drawn_and_nothing_else(held_out, said, max_operand, words):
    questions = arithmetic_questions(held_out, max_operand)
    figure, _ = pictures.model_figure([('a model', table_of(questions, [said or q.answer for q in questions]))])
    expected = [words] * bool(words) + ['frame: held out'] * bool(held_out)
    assert figure.axes[-1].get_xlabel().split('\n')[1:] == ['; '.join(expected)] * bool(expected)
    pictures.plt.close(figure)


def test_a_legend_stays_inside_its_figure():
    from plot_results import add_legend
    figure, axes = pictures.plt.subplots(figsize=(5, 3), layout='constrained')
    for n in (2, 9):
        add_legend(figure, {f'{i} of the curves of a run': axes.plot(range(2))[0] for i in range(n)})
        figure.draw_without_rendering()
        box = figure.legends[-1].get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert [legend._ncols for legend in figure.legends] == [2, 2]
    pictures.plt.close(figure)


def test_bars_are_as_long_as_the_probabilities_and_wrong_answers_stand_beside_them():
    questions = [q for q in paper_meta().questions if q.task == 'facts']
    table = table_of(questions, ['Rome' if 'Spain' in q.prompt else q.answer for q in questions])
    table['prob'] = np.linspace(0.1, 0.9, 50)
    table.loc[49, ['said', 'right']] = ' \n', False
    figure, axes = pictures.plt.subplots()
    pictures.draw_task(axes, table)
    assert np.allclose([bar.get_width() for bar in axes.patches], table.prob)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0] == 'France: Paris' and len(names) == 50
    assert [text.get_text() for text in axes.texts] == ['Rome', '(nothing)']
    assert round(axes.texts[0].get_position()[1]) == names.index('Spain: Madrid')
    pictures.plt.close(figure)


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
    pictures.plt.close(figure)


def test_runs_with_other_questions_share_one_order():
    """Names stay with their questions, also where a second run adds some to a task of the first; the order is the mean's."""
    small, large = (table_of(questions, [q.answer for q in questions]).assign(iter=0) for questions in
                    (arithmetic_questions((), 1), arithmetic_questions((), 2)))
    late = large.assign(iter=500, right=large.prompt != '<0+0=')
    panels = pictures.answer_panels([small, pd.concat([large, late])])
    assert list(panels) == ['addition', 'subtraction'] and [len(part) for part in panels.values()] == [9, 9]
    for part in panels.values():
        assert all(prompt == f'<{name}=' for (_, prompt), name in zip(part.index, part.name))
    assert panels['addition'].name.iloc[-1] == '0+0'


def test_prompts_are_shortened_to_what_tells_them_apart():
    assert pictures.short(['Capital of France is ', 'Capital of the USA is ']) == ['France', 'the USA']
    assert pictures.short(['<5+7=', '<7-5=']) == ['5+7', '7-5'] and pictures.short(['<5+7=']) == ['<5+7=']
    assert pictures.short(['The cat says ', 'The cow says ']) == ['cat', 'cow'], 'words stay whole'


def test_facts_have_their_curve_unless_it_is_that_of_their_own_tasks():
    from plot_results import curves_of
    empty = {f'{task}_{what}': 0.0 for task in ('add', 'sub', 'heldout') for what in ('correct', 'total')}
    table = pd.DataFrame({'iter': [0, 250], **empty, 'facts_correct': [0, 20], 'facts_total': 50, 'mul_total': 50})
    assert list(curves_of(table.assign(mul_correct=[0, 20]), 'both')) == ['mul']
    assert list(curves_of(table.assign(mul_correct=[0, 30]), 'both')) == ['facts', 'mul']
    assert list(curves_of(table.assign(mul_correct=[0, 20]), 'facts')) == ['mul']


def test_seen_sums_are_drawn_apart_from_those_held_out(project):
    """From a results.csv in which all that is held out is right and nothing else is."""
    from plot_results import curves_of
    results = pd.read_csv(project.folder / BOTH / 'results.csv')
    results[['add_correct', 'sub_correct', 'facts_correct']] = 2, 2, 50
    results[['heldout_correct', 'heldout_total', 'add_total', 'sub_total', 'facts_total']] = 4, 4, 100, 100, 100
    curves = curves_of(results, 'both')
    assert list(curves) == ['seen sums', 'held out', 'facts', 'held out, probability']
    assert (curves['seen sums'] == 0).all() and (curves['held out'] == 100).all() and (curves.facts == 50).all()
    assert np.allclose(curves['held out, probability'], 100 * results.heldout_prob)
    assert list(curves_of(results, 'math'))[:2] == ['addition', 'subtraction']
    assert list(curves_of(results, 'facts')) == ['facts']


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
    project.check('eval_as_math.py', f'--out_dir={MATH}', '--max_operand=19', '--num_samples=1', f'--output={MATH}/large.svg')
    project.check('eval_capitals.py', f'--out_dir={BOTH}', '--plot')
    project.check('plot_model.py', f'--out_dir={FACTS}')
    project.check('plot_results.py', '--answers', '--model_folder', BOTH)
    project.check('plot_results.py', '--answers', '--logx', '--model_folder', MATH, FACTS, '--output=all.pdf')
    for picture in (f'{MATH}/grid.png', f'{BOTH}/facts.png', f'{FACTS}/model.png', f'{BOTH}/answers.png'):
        shows(project.folder / picture)
    assert (project.folder / MATH / 'large.svg').read_text().rstrip().endswith('</svg>')
    assert (project.folder / 'all.pdf').read_bytes().startswith(b'%PDF')


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
    project.fails('plot_results.py', '--film', '--model_folder', MATH, '--output=x.png', says='cannot write x.png: use .gif')
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
    pd.read_csv(project.folder / BOTH / 'results.csv')[list(CLASSIC_COLUMNS)].to_csv(folder / 'results.csv', index=False)
    project.check('plot_results.py', '--model_folder', 'classic', BOTH, '--output=both.png')
    shows(project.folder / 'both.png')
    for kind in ('--answers', '--film'):
        project.fails('plot_results.py', kind, '--model_folder', 'classic', says='no answers.csv.gz in classic')
    project.fails('plot_model.py', '--out_dir=classic', says='no ckpt.pt in classic')


def test_the_inside_of_several_layers_has_a_row_for_each(project):
    project.check('train_with_eval.py', f'config/train_{BOTH}.py', *TINY, '--n_layer=2', '--n_head=2', '--out_dir=deep')
    project.check('plot_model.py', '--out_dir=deep', '--output=deep.png')
    assert shows(project.folder / 'deep.png')[1] == pytest.approx(150 * (3.4 + 2.1 * 2), abs=1)


# -----------------------------------------------------------------------------
# tools of others


def test_an_exported_folder_opens_in_transformerlens_with_equal_logits_and_attention(project):
    """Its hooks see the attention that plot_model.py draws. That it opens in transformers is in test_gpt2.py."""
    bridge = pytest.importorskip('transformer_lens.model_bridge', reason='pip install transformer_lens').TransformerBridge
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
