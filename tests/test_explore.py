"""The page of explore.py in a real browser, what the script says if it lacks something, and the weights kept for it."""

import contextlib
import copy
import functools
import gzip
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPO, TINY, assert_same_run
from little import little_model
from test_pictures import attention

import explore
from common.answers import append_answers, read_answers
from common.checkpoint import load_model
from common.dataset import load_meta, meta_bytes
from common.errors import UserError
from common.evaluate import grade, next_token_logits
from common.questions import Question, arithmetic_questions
from common.results import results_row
from common.sweeps import tell_apart
from common.weights import append_weights, flat_weights, read_weights

SUMS = [REPO / f'results/math_mini_{width}' for width in (14, 28, 56)]
FACTS = REPO / 'results/facts_mini_14'
QUIET = ('--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update '
         '--disable-sync').split()
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')


@pytest.fixture(scope='module')
def browser():
    playwright = pytest.importorskip('playwright.sync_api',
                                     reason='pip install playwright to test the page in a browser')
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not path:
        pytest.skip(f"no browser: install one of {', '.join(BROWSERS)} to test the page of explore.py")
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=path, args=QUIET)
        yield chromium
        chromium.close()


run_of = functools.cache(explore.run_of)


@pytest.fixture
def look(browser, tmp_path):
    with opener(browser, tmp_path) as look:
        yield look


@contextlib.contextmanager
def opener(browser, folder):
    """A function that opens the page of some model folders; nothing may go wrong in it, and nothing may be loaded."""
    contexts, faults = [], []

    def look(*folders, width=1300, height=900, scheme='light'):
        file = folder / 'page.html'
        runs = [run_of(folder, name) for folder, name in zip(folders, tell_apart(folders))]
        file.write_text(explore.page_of(runs))
        contexts.append(browser.new_context(viewport={'width': width, 'height': height}, color_scheme=scheme,
                                            reduced_motion='reduce'))
        page = contexts[-1].new_page()
        page.on('pageerror', lambda error: faults.append(str(error)))
        page.on('console', lambda message: faults.append(message.text) if message.type == 'error' else None)
        page.on('dialog', lambda dialog: (faults.append('a dialog'), dialog.dismiss()))
        page.on('request', lambda request: request.url != file.as_uri() and faults.append(request.url))
        page.goto(file.as_uri())
        return page
    look.faults = faults
    yield look
    for context in contexts:
        context.close()
    assert not faults


def write_run(folder, questions, iters, **shape):
    """A model folder with an untrained model at each of the iterations, the last of them as its checkpoint."""
    folder.mkdir(parents=True)
    chars = sorted({*'\n'.join(q.line for q in questions)})
    (folder / 'meta.pkl').write_bytes(meta_bytes(chars, questions))
    meta, rows = load_meta(folder / 'meta.pkl'), []
    for i in iters:
        model = little_model(len(chars), seed=i, std=0.3, **shape)
        table = grade(model, meta.tokenizer, meta.questions, seed=i)
        append_answers(i, table, folder)
        rows.append(results_row(i, table, questions, 2 - i / 100, 2 - i / 100))
    pd.DataFrame(rows).to_csv(folder / 'results.csv', index=False)
    torch.save({'model': model.state_dict(), 'model_args': model.config.model_args(), 'iter_num': i},
               folder / 'ckpt.pt')
    return model, meta


def cell(page, prompt, run=0):
    """The element of a question in one run's grid or list."""
    return page.locator(f'[data-run="{run}"][data-q="{page.evaluate(QUESTION, [run, prompt])}"]')


QUESTION = '([run, prompt]) => runs[run].questions.findIndex(question => question.prompt === prompt)'
LOGITS = '([run, contexts]) => contexts.map(ids => [...forward(modelAt(runs[run]).model, ids).logits])'


def contexts_of(meta):
    """Every context in which a question's answer and terminator are predicted, as lists of ids."""
    return [meta.tokenizer.encode(q.line[:n]) for q in meta.questions for n in range(len(q.prompt), len(q.line))]


def until(page, condition):
    """Wait until a condition in JavaScript holds; the page's policy forbids Playwright's own way, which is eval."""
    for _ in range(500):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise AssertionError(condition)


def go(page, iteration):
    page.evaluate('iter => showStep(iters.indexOf(iter))', iteration)


def test_a_link_to_a_model_folder_is_called_by_its_own_name(tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'link').symlink_to('run')
    assert tell_apart([tmp_path / 'link', f'{tmp_path}/./run/']) == ['link', 'run']


# -----------------------------------------------------------------------------
# the model in the page


def exact_logits(model, contexts):
    """PyTorch's, in doubles: in single precision its own rounding of logits around 100 is 2e-4 to 4e-4."""
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        return np.array([model(torch.tensor([ids[-model.config.block_size:]]))[0][0, -1].numpy() for ids in contexts])


def test_logits_in_the_page_are_those_of_torch_for_every_question_of_the_papers_runs(look):
    page = look(*SUMS, FACTS)
    for i, folder in enumerate([*SUMS, FACTS]):
        model, meta, _, _ = load_model(folder, ['ckpt.pt'])
        contexts = contexts_of(meta)
        assert len(contexts) > 400
        logits = page.evaluate(LOGITS, [i, contexts])
        np.testing.assert_allclose(logits, exact_logits(model, contexts), atol=1e-9, rtol=0)
        single = next_token_logits(model, contexts).numpy()
        np.testing.assert_allclose(logits, single, atol=1e-5 * np.abs(single).max(), rtol=0)


@pytest.mark.parametrize('shape', [
    dict(n_layer=3, n_head=4, bias=True, mlp_expansion=4), dict(n_layer=1, n_head=2, activation='gelu_new', bias=True),
    dict(n_layer=2, n_head=1, mlp_expansion=1)], ids=str)
def test_models_of_any_shape_are_computed_and_long_texts_are_cropped(look, tmp_path, shape):
    """Biases and LayerNorms are not at their first values, and the contexts are up to three times the block."""
    folder, questions = tmp_path / 'run', arithmetic_questions(max_operand=2)
    write_run(folder, questions, [0], block_size=7, **shape)
    checkpoint, generator = torch.load(folder / 'ckpt.pt', weights_only=True), torch.Generator().manual_seed(1)
    for tensor in checkpoint['model'].values():
        if tensor.dim() == 1:
            tensor += torch.randn(tensor.shape, generator=generator) / 2
    torch.save(checkpoint, folder / 'ckpt.pt')
    model, meta, _, _ = load_model(folder, ['ckpt.pt'])
    contexts = [torch.randint(model.config.vocab_size, (n,), generator=generator).tolist() for n in range(1, 22)]
    page = look(folder)
    np.testing.assert_allclose(page.evaluate(LOGITS, [0, contexts]), exact_logits(model, contexts), atol=1e-9, rtol=0)
    looks = page.evaluate('ids => forward(modelAt(runs[0]).model, ids).attention', contexts[5])
    for heads, expected in zip(looks, attention()(model, contexts[5])):
        for t in range(6):
            np.testing.assert_allclose(np.mean([head[t] for head in heads], axis=0), expected[t, :t + 1].detach(),
                                       atol=1e-5)


def test_the_error_function_is_exact_to_single_precision(look):
    x = np.linspace(-8, 8, 400).tolist()
    expected = torch.erf(torch.tensor(x, dtype=torch.float64))
    np.testing.assert_allclose(look(SUMS[0]).evaluate('x => x.map(erf)', x), expected, atol=1e-14)


def test_a_typed_prompt_is_answered_character_by_character_as_by_generation(look):
    """Also a prompt that is longer than the context, which moves on while the model writes."""
    model, meta, _, _ = load_model(SUMS[0], ['ckpt.pt'])
    page = look(SUMS[0])
    for prompt in ('<3+4=', '<8', '1', '<1+1=2>   \n<9-4=', '5-7=-2>  \n<5-7=-2>\n<7'):
        page.fill('#prompt', prompt)
        ids = torch.tensor([meta.tokenizer.encode(prompt)])
        text = meta.tokenizer.decode(model.generate(ids, 4, temperature=0)[0, ids.size(1):].tolist())
        expected = text[:text.index('>') + 1] if '>' in text else text
        written = page.locator('.written code b').text_content()
        assert written == expected.replace('\n', '↵').replace(' ', '␣')
        cards = page.locator('.step')
        assert cards.count() == len(expected)
        context = ids
        for n, ch in enumerate(expected):
            prob = model(context[:, -9:])[0][0, -1].softmax(-1)[meta.tokenizer.encode(ch)[0]].item()
            shown = cards.nth(n).locator('.taken .percent').text_content()
            assert shown == page.evaluate('percent', prob)
            context = torch.cat([context, torch.tensor([meta.tokenizer.encode(ch)])], 1)
        cropped = page.locator('.live .note code')
        assert cropped.count() == (len(prompt) > 9)
        if len(prompt) > 9:
            assert cropped.text_content() == prompt[-9:].replace('\n', '↵').replace(' ', '␣')


def test_characters_outside_the_vocabulary_and_no_characters_get_a_sentence(look):
    page = look(SUMS[0], FACTS)
    page.fill('#prompt', '<3*4é=')
    errors = page.locator('.error').all_text_contents()
    assert errors[0].startswith('The vocabulary of 17 characters has no “*”, “é”. It has ↵ ␣ + - 0 1')
    assert 'no “<”, “3”, “*”' in errors[1] and page.locator('.step').count() == 0
    page.fill('#prompt', '')
    assert page.locator('.live').all_text_contents()[0].endswith('Type at least one character.')
    page.fill('#prompt', '<3+4=')
    assert page.locator('.written b').text_content() == '7>' and page.locator('.error').count() == 1


def test_along_the_right_answer_the_steps_multiply_to_the_probability_that_was_recorded(look):
    for folder in (SUMS[1], FACTS):
        answers = read_answers(folder)
        page = look(folder)
        iteration = page.evaluate('runs[0].models[0].iter')
        go(page, iteration)
        page.check('#along-right')
        for row in answers[answers.iter == iteration].iloc[::23].itertuples():
            cell(page, row.prompt).click()
            steps = page.evaluate('answerOf(runs[0]).steps.map(step => step.probs[step.taken])')
            assert np.prod(steps) == pytest.approx(row.prob, rel=1e-3, abs=1e-30)
            assert page.locator('.written b').text_content().startswith(row.answer.replace(' ', '␣'))


def test_a_click_on_a_step_shows_where_the_model_looks(look):
    model, meta, _, _ = load_model(SUMS[0], ['ckpt.pt'])
    page = look(SUMS[0])
    cell(page, '<5-7=').click()
    page.locator('.step').nth(1).click()
    assert page.locator('.step').nth(1).get_attribute('aria-pressed') == 'true'
    looks = attention()(model, meta.tokenizer.encode('<5-7=-'))[0][-1].tolist()
    assert page.locator('.looks .cell').count() == 21
    strongest = max(range(6), key=looks.__getitem__)
    first = page.locator('.looks li').first.text_content()
    assert first == f"{'<5-7=-'[strongest]} {page.evaluate('percent', looks[strongest])} (position {strongest + 1})"


# -----------------------------------------------------------------------------
# what was recorded


def test_the_slider_shows_every_evaluation_as_it_was_recorded(look):
    answers = read_answers(SUMS[0])
    page = look(SUMS[0], SUMS[2])
    assert page.locator('#slider').get_attribute('max') == '120'
    for iteration in (0, 5000, 30000):
        go(page, iteration)
        assert page.locator('#iteration').text_content() == f'iteration {iteration:,}'
        table = answers[answers.iter == iteration].reset_index()
        labels = page.locator('[data-run="0"]').evaluate_all(
            'cells => cells.map(cell => cell.getAttribute("aria-label"))')
        for row, label in zip(table.itertuples(), labels):
            said = row.said.replace('-', '−').strip()
            assert f"prediction {said}, {'right' if row.right else 'wrong'}" in label
            assert label.startswith(row.prompt[1:-1].replace('-', '−'))
            assert ('held out' in label) == (row.group == 'held out')
            assert label.endswith(page.evaluate('percent', np.rint(row.prob * 1e4) / 1e4))
        framed = page.locator('td.framed[data-run="0"]').count()
        assert framed == 4 and page.locator('td.wrong[data-run="0"]').count() == (~table.right).sum()
        held_out = table[(table.group == 'held out') & (table.task == 'add')].right.sum()
        assert page.locator('.scores').first.text_content().endswith(f'held out {held_out} of 2')
    colour = cell(page, '<5-7=').evaluate('cell => cell.style.getPropertyValue("--p")')
    assert float(colour) == pytest.approx(table.prob[157], abs=5e-5)


def test_the_slider_moves_by_its_keys_its_buttons_the_curves_and_play(look):
    page = look(*SUMS[:2])
    page.focus('#slider')
    for press, iteration in (('Home', 0), ('ArrowRight', 250), ('ArrowRight', 500), ('ArrowLeft', 250)):
        page.keyboard.press(press)
        assert page.locator('#iteration').text_content() == f'iteration {iteration:,}'
    page.click('#after')
    assert page.locator('#slider').get_attribute('aria-valuetext') == 'iteration 500'
    page.click('#before')
    assert page.locator('#slider').input_value() == '1'
    page.click('#play')
    assert page.locator('#play').text_content() == 'Pause'
    until(page, 'state.step >= 4')
    page.click('#play')
    stopped = page.evaluate('state.step')
    assert page.locator('#play').text_content() == 'Play' and 4 <= stopped < 100
    chart = page.locator('#known .chart').bounding_box()
    page.mouse.click(chart['x'] + 40 + (chart['width'] - 50) / 2, chart['y'] + 60)
    assert page.locator('#iteration').text_content() == 'iteration 15,000'
    cursors = page.locator('#curves .cursor')
    assert cursors.count() == 4 and len(set(cursors.evaluate_all('all => all.map(one => one.getAttribute("x1"))'))) == 1
    before = cursors.first.get_attribute('x1')
    go(page, 0)
    assert float(cursors.first.get_attribute('x1')) < float(before)
    page.evaluate('showStep(iters.length - 3)')
    page.click('#play')
    until(page, 'state.step === iters.length - 1 && !state.timer')
    assert page.locator('#play').text_content() == 'Play'
    page.click('#play')
    until(page, 'state.step < 20')


def test_a_click_on_a_question_shows_its_trajectory_and_when_the_prediction_changed(look):
    page = look(*SUMS)
    cell(page, '<5-7=', run=1).click()
    assert page.input_value('#prompt') == '<5-7='
    assert page.locator('[aria-selected=true]').count() == 3
    rows = page.locator('#now tbody tr').all()
    paths = page.locator('#known .chart path')
    for i, folder in enumerate(SUMS):
        asked = read_answers(folder).query('prompt == "<5-7="')
        changed = asked[asked.said != asked.said.shift()]
        strip = page.locator('#known .strip').nth(i)
        assert strip.locator('rect').count() == len(changed)
        titles = strip.locator('title').all_text_contents()
        assert [int(re.search('from ([0-9,]+)', title)[1].replace(',', '')) for title in titles] == list(changed.iter)
        assert [title.endswith('right') for title in titles] == list(changed.right)
        last_wrong = asked.iter[~asked.right].max()
        learnt = asked.iter[asked.iter > last_wrong].min()
        expected = f'at {learnt:,}' if pd.notna(learnt) else 'never'
        texts = rows[i].locator('th, td').all_text_contents()
        said = asked.said.iloc[-1].replace('-', '−')
        assert texts == [folder.name, f"“{said}” {'✓' if asked.right.iloc[-1] else '✗'}",
                         page.evaluate('percent', asked.prob.iloc[-1]), expected]
        heights = [float(point.split(' ')[1])
                   for point in re.findall(r'[\d.]+ [\d.]+', paths.nth(i).get_attribute('d'))]
        np.testing.assert_allclose(heights, 6 + 126 * (1 - asked.prob), atol=0.06)
    page.locator('#known details').first.click()
    page.locator('#known .changes button').nth(3).click()
    assert page.evaluate('iters[state.step]') == read_answers(SUMS[0]).query('prompt == "<5-7="').pipe(
        lambda asked: asked[asked.said != asked.said.shift()]).iter.iloc[3]


def test_the_questions_that_were_learnt_last_stand_below_their_grid(look):
    """The order is that of pandas, and its entries lead to the question."""
    page = look(SUMS[0])
    answers = read_answers(SUMS[0]).query('task == "sub"')
    last_wrong = answers[~answers.right].groupby('prompt').iter.max()
    assert page.locator('.order summary').nth(1).text_content() == (
        f"learnt last: {last_wrong.idxmax()[1:-1].replace('-', '−')} at {last_wrong.max() + 250:,} (held out)")
    page.locator('.order summary').nth(1).click()
    listed = page.locator('.order').nth(1).locator('button')
    times = [int(re.search(' at ([0-9,]+)', text)[1].replace(',', '')) for text in listed.all_text_contents()]
    assert len(times) == 100 and times == sorted(times, reverse=True)
    listed.nth(1).click()
    assert page.locator('#known h2').text_content() == listed.nth(1).text_content().split(' ')[0]


def test_facts_are_a_list_with_bars(look):
    answers = read_answers(FACTS)
    page = look(FACTS)
    assert page.locator('[role=option]').count() == 50 and page.locator('[role=grid]').count() == 0
    table = answers[answers.iter == 30000].reset_index()
    for i in (0, 2, 40):
        row, option = table.loc[i], page.locator('[role=option]').nth(i)
        country = row.prompt.removeprefix('Capital of ').removesuffix(' is ')
        assert option.locator('.name').text_content() == f'{country}: {row.answer}'
        assert option.locator('.said').text_content() == ('' if row.right else row.said.strip())
        assert option.locator('.percent').text_content() == page.evaluate('percent', np.rint(row.prob * 1e4) / 1e4)
    page.locator('[role=option]').nth(3).click()
    assert page.input_value('#prompt') == 'Capital of Germany is '
    page.keyboard.press('ArrowDown')
    assert page.input_value('#prompt') == 'Capital of Italy is '


def test_the_arrow_keys_walk_through_a_grid_and_tab_leaves_it(look):
    page = look(SUMS[0])
    cell(page, '<5+7=').click()
    for press, prompt in (('ArrowDown', '<6+7='), ('ArrowRight', '<6+8='), ('ArrowUp', '<5+8='), ('ArrowLeft', '<5+7='),
                          ('Home', '<0+0='), ('ArrowUp', '<0+0='), ('End', '<9+9=')):
        page.keyboard.press(press)
        assert page.input_value('#prompt') == prompt
        assert page.evaluate('document.activeElement.ariaSelected') == 'true'
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.tagName') == 'SUMMARY'
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.ariaLabel').startswith('0−0')


def test_learning_curves_are_those_of_results_csv(look):
    page = look(SUMS[0])
    results = pd.read_csv(SUMS[0] / 'results.csv')
    assert page.locator('#curves .legend .entry').all_text_contents() == [
        'addition', 'subtraction', 'held-out accuracy', 'probability of the right answer, held out']
    addition = page.locator('#curves .chart').first.locator('path').first.get_attribute('d')
    heights = [float(point.split(' ')[1]) for point in re.findall(r'[\d.]+ [\d.]+', addition)]
    np.testing.assert_allclose(heights, 6 + 106 * (1 - results.add_correct / results.add_total), atol=0.06)
    assert page.locator('#curves .chart').first.locator('circle').count() == 121


@pytest.fixture(scope='module')
def two_runs(browser, tmp_path_factory):
    """The page of two runs that differ in nearly everything, also in the answer to 1+2; the first kept its weights."""
    folder = tmp_path_factory.mktemp('two')
    _, meta = write_run(folder / 'a/run', arithmetic_questions(max_operand=2), [0, 20, 40])
    for i in (0, 20, 40):
        append_weights(i, little_model(meta.tokenizer.vocab_size, seed=i, std=0.3), folder / 'a/run')
    write_run(folder / 'b/run', [q._replace(answer='7', group='held out') if q.prompt == '<1+2=' else q
                                 for q in arithmetic_questions(max_operand=3)], [10, 35])
    with opener(browser, folder) as look:
        yield look(folder / 'a/run', folder / 'b/run')


def test_the_slider_has_the_evaluations_of_all_runs_and_each_says_which_of_its_own_it_shows(two_runs):
    assert two_runs.locator('.run h2').all_text_contents() == ['a/run', 'b/run']
    assert two_runs.evaluate('iters') == [0, 10, 20, 35, 40]
    for iteration, whens in ((0, ['', 'its first evaluation: iteration 10']),
                             (10, ['its latest evaluation: iteration 0', '']),
                             (20, ['', 'its latest evaluation: iteration 10']),
                             (35, ['its latest evaluation: iteration 20', ''])):
        go(two_runs, iteration)
        assert two_runs.locator('.when').all_text_contents() == whens


def test_the_model_is_that_of_the_evaluation_that_is_shown_even_if_another_is_nearer_to_the_slider(two_runs):
    go(two_runs, 35)
    assert two_runs.evaluate('modelAt(runs[0]).iter') == 20
    assert two_runs.locator('.live .note').first.text_content() == 'This is the model of iteration 20 (weights.bin)'


def test_a_question_of_one_run_is_marked_and_shown_there_alone(two_runs):
    cell(two_runs, '<3+3=', run=1).click()
    assert two_runs.locator('[aria-selected=true]').count() == 1 and two_runs.locator('#now tbody tr').count() == 1
    assert 'no “3”' not in two_runs.locator('#live').text_content(), 'an answer of the first run has a 3 as well'


def test_runs_that_differ_in_the_answer_or_the_group_of_a_question_say_theirs(two_runs):
    cell(two_runs, '<1+2=').click()
    assert two_runs.locator('#now small').all_text_contents() == ['a training question; right: 3', 'held out; right: 7']
    assert two_runs.locator('.facts b').count() == 0
    cell(two_runs, '<1+1=').click()
    assert two_runs.locator('#now small').count() == 0 and two_runs.locator('.facts b').text_content() == '2'


def test_the_predictions_of_a_run_end_at_its_last_evaluation(two_runs):
    """A prediction that begins there is seen as well."""
    cell(two_runs, '<1+2=').click()
    ends = two_runs.evaluate('''() => [...document.querySelectorAll('#known .strip')].map(svg => {
        const {x, width} = [...svg.querySelectorAll('rect')].at(-1);
        return x.baseVal.value + width.baseVal.value; })''')
    width = two_runs.evaluate('document.querySelector("#known .strip").width.baseVal.value')
    assert ends == pytest.approx([width - 10, 40 + (width - 50) * 35 / 40])
    last = two_runs.evaluate('''() => { const said = {said: '1', right: true};
        const svg = strip(axis, 300, '', 's0', [{iter: 0, ...said}, {iter: 35, ...said}], 35);
        const {x, width} = [...svg.querySelectorAll('rect')].at(-1);
        return [x.baseVal.value, width.baseVal.value]; }''')
    end = 40 + 250 * 35 / 40
    assert last == pytest.approx([end - 3, 3])


def test_enter_does_not_change_the_prompt_and_shift_enter_begins_a_line_in_a_field_that_grows(two_runs):
    two_runs.fill('#prompt', '<2-1=')
    height = two_runs.locator('#prompt').bounding_box()['height']
    two_runs.press('#prompt', 'Enter')
    assert two_runs.input_value('#prompt') == '<2-1='
    two_runs.press('#prompt', 'Shift+Enter')
    assert two_runs.input_value('#prompt') == '<2-1=\n'
    assert 'Shift+Enter' in two_runs.locator('#hint').text_content()
    assert two_runs.locator('#prompt').bounding_box()['height'] > height + 10
    two_runs.fill('#prompt', '\n' * 50)
    assert two_runs.locator('#prompt').bounding_box()['height'] < 5 * height


def test_a_prompt_that_is_no_question_is_told_what_the_questions_look_like(two_runs):
    two_runs.fill('#prompt', '2-1')
    assert two_runs.locator('#known').text_content() == 'No recorded question. The dataset’s look like <0+0='
    two_runs.fill('#prompt', '')
    assert two_runs.locator('#known').text_content() == '' and two_runs.locator('[role=status]').text_content() == ''


def test_a_minus_as_the_page_writes_it_is_read_as_a_hyphen(two_runs):
    two_runs.fill('#prompt', '<2−1=')
    assert two_runs.input_value('#prompt') == '<2-1=' and two_runs.locator('#known h2').text_content() == '2−1'
    assert two_runs.locator('.error').count() == 0


def test_runs_with_other_characters_each_say_theirs(two_runs):
    texts = two_runs.locator('.live .note:has-text("Characters")').all_text_contents()
    assert texts == ['Characters: ↵ + - 0 1 2 3 4 < = >', 'Characters: ↵ + - 0 1 2 3 4 5 6 7 < = >']


def test_an_answer_is_computed_without_reading_its_text_again(two_runs):
    read = two_runs.evaluate('''() => { const own = readToken, {model} = modelAt(runs[0]); let n = 0;
        window.readToken = (...all) => { n++; return own(...all); };
        answerSteps(model, [1, 2, 3, 4, 5], 4, []);
        window.readToken = own; return n; }''')
    assert read == 5 + 3


def test_a_step_is_read_as_words(two_runs):
    cell(two_runs, '<1+2=').click()
    step, options = two_runs.locator('.step').first, two_runs.locator('.step').first.locator('.option')
    said = [f"{option.locator('.ch').text_content()}, {option.locator('.percent').text_content()}"
            for option in options.all()]
    assert step.get_attribute('aria-label') == 'step 1: ' + '; '.join(said)


def test_characters_that_cannot_be_seen_are_shown_by_their_codes(two_runs):
    assert two_runs.evaluate(r"visible('a \n\u202e\u200b\u00a0é😀')") == 'a␣↵U+202EU+200BU+00A0é😀'


def test_twelve_runs_have_lines_of_their_own(two_runs):
    lines = two_runs.evaluate('''() => [...Array(12).keys()].map(n => {
        const svg = key(`s${n}`); document.body.append(svg);
        const {stroke, strokeDasharray} = getComputedStyle(svg.firstChild); svg.remove();
        return stroke + strokeDasharray; })''')
    assert len(set(lines)) == 12 == explore.MOST_RUNS


def test_forced_colours_leave_the_probabilities_and_the_frames(two_runs):
    two_runs.emulate_media(forced_colors='active', color_scheme='light')
    styles = two_runs.evaluate('''() => [0.1, 0.9].map(prob => {
        runs[1].cells[0].style.transition = 'none';
        showCell(runs[1], 0, {prob, said: '1', right: true});
        return getComputedStyle(runs[1].cells[0]).backgroundColor; })''')
    assert styles[0] != styles[1]
    assert cell(two_runs, '<1+2=', run=1).evaluate('cell => getComputedStyle(cell).boxShadow') != 'none'
    two_runs.emulate_media(forced_colors='none')


def test_nothing_scrolls_by_itself_in_print(two_runs):
    two_runs.emulate_media(media='print')
    panel = two_runs.locator('#question').evaluate(
        'e => [getComputedStyle(e).position, e.scrollHeight - e.clientHeight]')
    two_runs.emulate_media(media='screen')
    assert panel == ['static', 0]


@pytest.mark.parametrize('width', [360, 1300])
def test_a_cell_shows_what_fits_of_a_prediction_and_says_what_it_leaves_out(look, width):
    page = look(SUMS[0], SUMS[1], SUMS[2], width=width)
    for said, shown in (('6561', '6561'), ('-100', '−100'), ('12345', '12…')):
        text, cell_width, span_width = page.evaluate('''said => { const [td] = runs[0].cells;
            showCell(runs[0], 0, {prob: 0.1, said, right: false});
            const widths = [td, td.firstChild].map(e => e.getBoundingClientRect().width);
            return [td.textContent, ...widths]; }''', said)
        assert text == shown and span_width <= cell_width


def test_long_names_and_answers_fit_a_small_screen(look, tmp_path):
    write_run(tmp_path / 'run', [Question('q', f'{n}{"Q" * 200} is ', 'A' * 150, 'seen', '\n') for n in range(2)], [0])
    page = look(tmp_path / 'run', width=360, height=740)
    page.evaluate('''() => { document.querySelectorAll('details').forEach(details => { details.open = true; });
                             runs[0].texts = ['B'.repeat(150)]; runs[0].said.fill(0); showNow(); }''')
    assert page.evaluate('document.documentElement.scrollWidth') <= 360


def test_a_cell_without_room_for_letters_marks_a_wrong_prediction_by_a_dot(look, tmp_path):
    write_run(tmp_path / 'run', [Question('add', f'<{a}+1=', str(a + 1)) for a in (0, 60)], [0])
    page = look(tmp_path / 'run')
    marks = page.evaluate('''() => [true, false].map(right => {
        showCell(runs[0], 0, {prob: 0.1, said: '1', right});
        return getComputedStyle(runs[0].cells[0]).backgroundImage.split('(')[0]; })''')
    assert marks == ['none', 'radial-gradient'] and page.locator('#dot').is_visible()


def test_a_run_that_goes_on_with_one_evaluation_of_one_question_has_a_page(look, tmp_path):
    write_run(tmp_path / 'run', [Question('add', '<1+2=', '3')], [0])
    (tmp_path / 'run/results.csv').rename(tmp_path / 'run/temp.csv')
    page = look(tmp_path / 'run')
    assert page.locator('[role=gridcell][data-q]').count() == 1
    page.click('#play')
    assert page.locator('#iteration').text_content() == 'iteration 0'


def test_sums_whose_prompts_begin_alike_are_in_their_cells(look, tmp_path):
    write_run(tmp_path / 'run', [Question('add', f'<5+{b}=', str(5 + b)) for b in (3, 4)], [0])
    page = look(tmp_path / 'run')
    assert page.locator('tbody tr').nth(5).locator('td[data-q]').count() == 2


@pytest.mark.parametrize('operand', [60, 5000])
def test_a_large_grid_is_small_or_a_list(look, tmp_path, operand):
    write_run(tmp_path / 'run', [Question('add', f'<{a}+1=', str(a + 1)) for a in (0, operand)], [0])
    page = look(tmp_path / 'run')
    assert page.locator('table.small').count() == (operand < 100) and page.locator('[role=option]').count() == (
        0 if operand < 100 else 2)
    page.locator('[data-q="1"]').hover()
    assert page.locator('[data-q="1"]').get_attribute('aria-label').startswith(str(operand))


# -----------------------------------------------------------------------------
# any name, any screen, any reader


def test_hostile_names_are_shown_as_text_and_never_run(look, tmp_path):
    evil = '</script><script>document.body.textContent="run"</script><!--"\'>'
    folder = tmp_path / '<img src=x onerror=alert(1)>"\''
    questions = [Question(evil, f"'{n}\" </textarea><b>&amp; ", f'{n}</td>"{n * n}', 'held out' if n == 1 else 'seen',
                          '\n')
                 for n in range(3)]
    questions += [Question('__proto__', f'{n} squared: ', str(n * n), 'seen', ';') for n in range(3)]
    questions += [Question('7', '7: ', '7', 'seen', ';')]
    write_run(folder, questions, [0, 10], n_head=4, block_size=40)
    page = look(folder)
    assert page.locator('.task h3').all_text_contents() == [evil, '__proto__', '7'], 'in the order of the dataset'
    assert page.locator('.run h2').text_content() == folder.name and folder.name in page.title()
    assert page.locator('script').count() == 4 and page.locator('img').count() == 0
    cell(page, questions[1].prompt).click()
    assert page.input_value('#prompt') == questions[1].prompt
    assert page.locator('.facts b').text_content() == questions[1].answer
    cell(page, questions[4].prompt).click()
    assert page.locator('.facts b').text_content() == '1'
    page.fill('#prompt', '<b>')
    assert page.locator('.written code').text_content().startswith('<b>')


def test_a_script_that_got_into_the_page_would_not_run(look):
    page = look(SUMS[0])
    page.evaluate('() => { const s = document.createElement("script"); s.textContent = "window.got = 1"; '
                  'document.body.append(s); }')
    assert page.evaluate('window.got') is None
    assert 'Content Security Policy' in look.faults.pop()


@pytest.mark.parametrize('width', [360, 700, 1000, 1920])
@pytest.mark.parametrize('folders', [SUMS, [FACTS], [SUMS[0]]], ids=['sums', 'facts', 'one'])
def test_the_page_fits_any_width(look, width, folders):
    page = look(*folders, width=width, height=740)
    cell(page, page.evaluate('runs[0].questions[7].prompt')).click()
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    wide = page.evaluate('''() => [...document.querySelectorAll('main *')].filter(e => e.getClientRects().length &&
        e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('#heard')).map(e => e.outerHTML.slice(0, 99))''')
    assert not wide
    if width < 1000:
        assert page.locator('#question').bounding_box()['y'] < 740, 'a click brings the question into view'


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_text_is_readable_on_every_colour(look, scheme):
    """WCAG's contrast of 4.5, of a number in a cell of any probability and of the words of the page."""
    page = look(SUMS[0], scheme=scheme)
    contrast = page.evaluate('''() => {
        const context = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
        const luminance = colour => {
          context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
          const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map(c => c / 255).map(
            c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const of = (element, ground) => ratio(luminance(getComputedStyle(element).color),
                                              luminance(getComputedStyle(ground || element).backgroundColor));
        const td = runs[0].cells[0], found = [];
        td.style.transition = 'none';
        for (let p = 0; p <= 1; p += 0.01) {
          showCell(runs[0], 0, {prob: p, said: '0', right: true});
          found.push([`cell ${p}`, of(td)]);
        }
        showCell(runs[0], 0, {prob: 0.5, said: '1', right: false});
        found.push(['wrong', of(td.firstChild)], ['soft', of(document.querySelector('.shape'), document.body)],
                   ['title', of(document.querySelector('h1'), document.body)],
                   ['button', of(document.querySelector('#play'))]);
        return found;
    }''')
    assert min(ratio for _, ratio in contrast) >= 4.5, min(contrast, key=lambda pair: pair[1])


def test_every_picture_and_field_has_a_name(look):
    page = look(*SUMS)
    cell(page, '<5-7=').click()
    nameless = page.evaluate('''() => [...document.querySelectorAll(`[role=img], [role=grid], [role=gridcell], button,
        input, textarea, select, section`)].filter(e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length ||
        e.getAttribute('aria-labelledby'))).map(e => e.outerHTML.slice(0, 99))''')
    assert not nameless
    assert page.locator('svg:not([role=img]):not([aria-hidden])').count() == 0
    assert 'math_mini_14 answers −2>'.replace('−', '-') in page.locator('[role=status]').text_content()


# -----------------------------------------------------------------------------
# the command


def test_the_command_writes_one_page_beside_a_run_or_in_the_current_folder(project):
    out = project.check('explore.py', '--out_dir=math_mini_14', './math_mini_14/')  # the same folder
    assert out.startswith('wrote math_mini_14/explore.html (0.')
    assert (project.folder / 'math_mini_14/explore.html').exists()
    assert project.check('explore.py', '--model_folder', 'math_mini_14', 'seed_1.log') == out, 'of seed_*'
    project.check('explore.py', 'math_mini_14', '--out_dir', 'facts_mini_14', 'both_mini_14')
    html = (project.folder / 'explore.html').read_text()
    assert all(f'"name": "{kind}_mini_14"' in html for kind in ('math', 'facts', 'both'))
    project.check('explore.py', 'both_mini_14', '--checkpoint=ckpt_last.pt', '--output=one.html')
    run = json.loads(re.search('id="data">(.*)</script>', (project.folder / 'one.html').read_text())[1])['runs'][0]
    assert [model['source'] for model in run['models']] == ['ckpt_last.pt']
    project.check('train_with_eval.py', 'config/train_math_mini_14.py', *TINY)  # the page does not stop the next run
    assert (project.folder / 'math_mini_14.1/explore.html').exists()


def test_what_is_missing_is_named_in_a_sentence_and_no_page_is_written(project):
    project.fails('explore.py', says='name a model folder')
    project.fails('explore.py', 'nowhere', says='model folder nowhere not found')
    project.fails('explore.py', *(f'run_{n}' for n in range(13)), says='13 model folders are too many')
    for name, says in (('answers.csv.gz', 'no answers.csv.gz in math_mini_14'),
                       ('results.csv', 'no results.csv in math_mini_14'), ('ckpt*.pt', 'no ckpt.pt in math_mini_14')):
        shutil.copytree(project.folder / 'math_mini_14', project.folder / 'kept')
        for path in (project.folder / 'math_mini_14').glob(name):
            path.unlink()
        project.fails('explore.py', 'math_mini_14', says=says)
        project.fails('explore.py', 'kept', 'math_mini_14', says=says)
        assert not list(project.folder.glob('**/explore.html'))
        shutil.rmtree(project.folder / 'math_mini_14')
        (project.folder / 'kept').rename(project.folder / 'math_mini_14')
    (project.folder / 'math_mini_14/answers.csv.gz').write_bytes(gzip.compress(b'iter,task\n'))
    project.fails('explore.py', 'math_mini_14', says='it has no column prompt')
    project.fails('explore.py', 'facts_mini_14', '--output=no/such/page.html', says='its folder is not there')


def test_a_model_of_gpt2s_encoding_is_refused(monkeypatch):
    def load(folder, names):
        model, meta, path, settings = load_model(folder, names)
        return model, meta._replace(tokenizer=meta.tokenizer._replace(bpe=True)), path, settings
    monkeypatch.setattr(explore, 'load_model', load)
    with pytest.raises(UserError, match="GPT-2's encoding"):
        explore.run_of(SUMS[0], 'x')


def test_checkpoints_of_different_shapes_are_refused_unless_one_is_named(tmp_path):
    _, meta = write_run(tmp_path / 'run', arithmetic_questions(max_operand=2), [0])
    other = little_model(meta.tokenizer.vocab_size, n_layer=1)
    torch.save({'model': other.state_dict(), 'model_args': other.config.model_args()}, tmp_path / 'run/ckpt_old.pt')
    with pytest.raises(UserError, match='ckpt.pt and ckpt_old.pt in .* are of different shapes'):
        explore.run_of(tmp_path / 'run', 'run')
    for name, n_layer in (('ckpt.pt', 2), ('ckpt_old.pt', 1)):
        assert explore.run_of(tmp_path / 'run', 'run', name)['models'][0]['config']['n_layer'] == n_layer


def test_answers_to_what_the_dataset_does_not_ask_get_a_sentence(tmp_path, capsys):
    write_run(tmp_path / 'run', arithmetic_questions(max_operand=2), [0])
    explore.run_of(tmp_path / 'run', 'run')
    assert 'another' not in ''.join(capsys.readouterr())
    write_run(tmp_path / 'other', arithmetic_questions(max_operand=3), [0])
    shutil.copy(tmp_path / 'other/answers.csv.gz', tmp_path / 'run')
    explore.run_of(tmp_path / 'run', 'run')
    assert "it may belong to another run" in ''.join(capsys.readouterr())


def test_the_page_of_the_papers_runs_is_small_and_refers_to_nothing(look):
    runs = [explore.run_of(folder, folder.name) for folder in SUMS]
    html = explore.page_of(runs)
    assert len(html) < 3e6
    assert not re.search(r'(src|href)="(?!#)', html) and '@import' not in html and 'url(' not in html
    assert (REPO / 'results/explore.html').stat().st_size < 3e6


@pytest.mark.parametrize('name', ['page.js', 'model.js'])
def test_the_scripts_of_the_page_hold_nothing_that_reads_text_as_html(name):
    source = (REPO / 'explore' / name).read_text()
    assert not re.search(r'innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|</|<!--', source)


# -----------------------------------------------------------------------------
# the weights that training keeps


def test_kept_weights_move_with_the_slider(look, project):
    project.check('train_with_eval.py', 'config/train_math_mini_14.py', *TINY, '--keep_weights', '--out_dir=kept',
                  '--learning_rate=0.5', '--warmup_iters=0')
    folder = project.folder / 'kept'
    model, meta, _, settings = load_model(folder, ['ckpt_last.pt'])
    records = read_weights(folder, model)
    assert list(records['iter']) == [0, 2, 4] and settings['iter_num'] == 4
    assert (records['weights'][2] == flat_weights(model)).all() and (records['weights'][1] != flat_weights(model)).any()
    assert len(explore.run_of(folder, 'kept', 'ckpt_last.pt')['models']) == 1, 'the only model that is wanted'
    page = look(folder)
    answers = read_answers(folder)
    for iteration in (0, 2, 4):
        go(page, iteration)
        page.check('#along-right')
        for row in answers[answers.iter == iteration].iloc[::40].itertuples():
            cell(page, row.prompt).click()
            steps = page.evaluate('answerOf(runs[0]).steps.map(step => step.probs[step.taken])')
            assert np.prod(steps) == pytest.approx(row.prob, rel=1e-3)
            assert f'This is the model of iteration {iteration} ' in page.locator('.live').first.text_content()


def test_without_kept_weights_the_page_says_whose_answer_it_is_in_the_colour_of_a_note(look):
    page = look(SUMS[0])
    go(page, 5000)
    note = page.locator('.live .note').first
    assert note.text_content() == (
        'This is the model of iteration 30,000 (ckpt.pt), the nearest to iteration 5,000 in this page. '
        'Weights of other iterations are kept with --keep_weights.')
    colours = [place.evaluate('element => getComputedStyle(element).color') for place in (note, page.locator('#hint'))]
    assert colours[0] == colours[1]


def test_a_resumed_run_keeps_the_weights_of_one_that_never_stopped(project):
    run = ['train_with_eval.py', 'config/train_math_mini_14.py', *TINY, '--keep_weights']
    project.check(*run, '--out_dir=whole')
    project.check(*run, '--out_dir=parts', '--max_iters=2')
    with open(project.folder / 'parts/weights.bin', 'ab') as f:
        f.write(b'half a record')
    project.check('train_with_eval.py', '--init_from=resume', '--out_dir=parts', '--max_iters=4')
    weights = [(project.folder / name / 'weights.bin').read_bytes() for name in ('whole', 'parts')]
    assert weights[0] == weights[1] and len(weights[0]) == 3 * (8 + 4 * 1582)
    assert_same_run(project.folder / 'whole', project.folder / 'parts')
    project.check(*run, '--out_dir=whole')  # weights.bin is a run's own file, so the run is moved aside
    assert (project.folder / 'whole.1/weights.bin').exists()


def test_a_run_keeps_no_weights_unless_it_is_asked(project):
    assert not list(project.folder.glob('*/weights.bin'))


def test_weights_are_read_as_they_were_appended(tmp_path):
    models = [little_model(5, seed=i, n_layer=1) for i in range(2)]
    assert len(read_weights(tmp_path, models[0])) == 0
    for i, model in enumerate(models):
        append_weights(10 * i, model, tmp_path)
    records = read_weights(tmp_path, models[0])
    assert list(records['iter']) == [0, 10] and (records['weights'][1] == flat_weights(models[1])).all()


def test_weights_of_another_model_are_refused(tmp_path):
    for i in range(4):
        append_weights(i, little_model(5, n_layer=1), tmp_path)
    with pytest.raises(UserError, match='does not hold the weights of this model'):
        read_weights(tmp_path, little_model(5, n_layer=2, std=0.3))
