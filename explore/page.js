// The page: what the runs said to every question at each evaluation, and their models, which answer here and now.
//
// `state` says what is shown. Whatever changes it calls the show functions, which draw anew what depends on it.

const data = JSON.parse(document.getElementById('data').textContent);
const runs = data.runs.map(openRun);
const iters = [...new Set(runs.flatMap(run => run.iters))].sort((a, b) => a - b);
// step: the slider's place in `iters`. task: that of the question whose prompt it is, or '' for a prompt of one's own.
// along: 'own' follows the answer that the model gives, 'right' the right one. timer: of the play button.
const state = {step: iters.length - 1, prompt: '', task: '', along: 'own', timer: 0};
const axis = {iters, now: () => iters[state.step], go: step => { play(false); showStep(step); }};
const part = id => document.getElementById(id);
const READABLE = 20;  // cells in a row of a grid, for a number to fit into one
const DARK = 0.676;  // at this probability black and white are equally readable on the cell, on both screens

// ---------------------------------------------------------------------------------------------------------------------
// the data

function openRun(raw, number) {
  const run = {...raw, number, cells: [], pair: 0, chosen: 0, shown: -1, style: `s${number}`};
  run.probs = new Uint16Array(bytes(raw.probs));
  run.said = new Uint32Array(bytes(raw.said));
  run.right = new Uint8Array(bytes(raw.right));
  run.ids = new Map(raw.vocabulary.map((ch, id) => [ch, id]));
  run.index = new Map(raw.questions.map(({task, prompt}, q) => [task + '\n' + prompt, q]));
  run.learnt = raw.questions.map((_, q) => learntForGood(run, q));
  return run;
}

// What was recorded of question q at the evaluation with number t; null if it was not asked then.
function recorded(run, t, q) {
  const i = t * run.questions.length + q;
  return run.probs[i] === data.notAsked ? null
    : {iter: run.iters[t], prob: run.probs[i] / 10000, said: run.texts[run.said[i]], right: run.right[i] === 1};
}

function recordsOf(run, q) {
  return run.iters.map((_, t) => recorded(run, t, q)).filter(entry => entry);
}

// The iteration from which on all predictions are right; Infinity if the last one is wrong.
function learntForGood(run, q) {
  const entries = recordsOf(run, q);
  return entries[entries.findLastIndex(entry => !entry.right) + 1]?.iter ?? Infinity;
}

const learntText = iter => iter === Infinity ? 'never' : `at ${count(iter)}`;

// The moments when the prediction became another one; the first evaluation is the first of them.
function changes(run, q) {
  return recordsOf(run, q).filter((entry, i, all) => entry.said !== all[i - 1]?.said);
}

// The number of a run's latest evaluation up to the slider, or of its first one.
function evaluationAt(run) {
  return Math.max(0, run.iters.findLastIndex(iter => iter <= iters[state.step]));
}

// The model whose iteration is nearest to that evaluation's; its weights are decoded when they are first needed.
function modelAt(run) {
  const distance = model => Math.abs(model.iter - run.iters[evaluationAt(run)]);
  const nearest = run.models.reduce((best, model) => distance(model) < distance(best) ? model : best);
  nearest.model ??= loadModel(nearest);
  return nearest;
}

// The number of the chosen question in a run; undefined if the run does not ask it.
function chosenIn(run) {
  return run.index.get(state.task + '\n' + state.prompt);
}

// What a run's model answers to the prompt: the steps, or the characters that its vocabulary lacks. It is asked anew only
// if the model or the prompt is another one.
function answerOf(run) {
  const {model, iter} = modelAt(run), question = run.questions[chosenIn(run)];
  const tasks = question ? [run.tasks[state.task]] : Object.values(run.tasks);
  const right = question && [...question.answer + tasks[0].terminator];
  const asked = [...state.prompt], along = right && state.along === 'right' ? right : [];
  const unknown = [...new Set([...asked, ...along])].filter(ch => !run.ids.has(ch));
  if (unknown.length || !asked.length) return {unknown, steps: []};
  const wanted = JSON.stringify([iter, state.prompt, state.task, along]);
  if (run.answered !== wanted) {
    const idsOf = characters => characters.map(ch => run.ids.get(ch));
    const limit = Math.max(...tasks.map(task => task.limit)), stops = tasks.map(task => [...task.terminator].at(-1));
    run.steps = answerSteps(model, idsOf(asked), limit, idsOf(stops), along.length ? idsOf(along) : null);
    run.chosen = Math.min(run.chosen, run.steps.length - 1);
    run.answered = wanted;
  }
  return {unknown, right, steps: run.steps};
}

// ---------------------------------------------------------------------------------------------------------------------
// all questions of a run

function buildRun(run) {
  const {config} = run.models[0];
  run.when = make('p', {class: 'when', hidden: iters.every(iter => run.iters.includes(iter))});
  return make('section', {class: 'run', 'aria-label': run.name},
    make('h2', {}, runs.length > 1 && key(run.style), run.name),
    make('p', {class: 'shape'}, `${several(run.n_params, 'parameter')}: ${several(config.n_layer, 'layer')}, ` +
      `${several(config.n_head, 'head')}, width ${config.n_embd}`),
    run.when,
    make('div', {class: 'tasks'}, [...new Set(run.questions.map(({task}) => task))].map(name => buildTask(run, name))));
}

function buildTask(run, name) {
  const task = run.tasks[name];
  task.asked = run.questions.map((question, q) => ({...question, q})).filter(question => question.task === name);
  task.scores = make('p', {class: 'scores'});
  const box = task.names.length ? buildGrid(run, task) : buildList(run, task);
  box.addEventListener('click', event => pick(event.target.closest('[data-q]'), true));
  box.addEventListener('keydown', event => move(event, task.rows));
  for (const wanted of task.names.length > READABLE ? ['focusin', 'pointerover'] : []) {
    box.addEventListener(wanted, event => event.target.dataset.q && describe(run, +event.target.dataset.q));
  }
  return make('div', {class: 'task'}, make('h3', {}, task.label), task.scores, box, buildOrder(run, task));
}

// A table with a row for each a and a column for each b, as in the pictures of plot_results.py.
function buildGrid(run, task) {
  const {places, names} = task, numbers = [...names.keys()], small = names.length > READABLE;
  task.rows = numbers.map(() => []);
  for (const [i, {q}] of task.asked.entries()) {
    const [a, b] = places[i];
    task.rows[a][b] = run.cells[q] = make('td', {role: 'gridcell', 'data-q': q, 'data-run': run.number});
  }
  const header = (n, scope) => make('th', {scope}, small && n % 10 ? '' : names[n]);
  return make('table', {role: 'grid', class: small && 'small', '--side': names.length,
                        'aria-label': `${task.label} of ${run.name}: the first operand down, the second across`},
    make('thead', {}, make('tr', {}, make('td'), numbers.map(b => header(b, 'col')))),
    make('tbody', {}, numbers.map(a => make('tr', {}, header(a, 'row'),
                                            numbers.map(b => task.rows[a][b] || make('td', {class: 'none'}))))));
}

function buildList(run, task) {
  task.rows = task.asked.map(({q}) => [run.cells[q] = make('li', {role: 'option', 'data-q': q, 'data-run': run.number})]);
  return make('ul', {role: 'listbox', 'aria-label': `${task.label} of ${run.name}`}, task.rows);
}

// The question that was learnt last stands below; the whole order unfolds.
function buildOrder(run, task) {
  const when = ({q}) => run.learnt[q], order = [...task.asked].sort((a, b) => when(a) === when(b) ? 0 : when(b) - when(a));
  const last = order.find(question => when(question) < Infinity), never = order.indexOf(last);
  const words = question =>
    `${plain(question.name)} ${learntText(when(question))}${question.group === 'seen' ? '' : ` (${question.group})`}`;
  return make('details', {class: 'order'},
    make('summary', {}, last ? `learnt last: ${words(last)}` : 'none is learnt for good',
         never > 0 && `; ${count(never)} never`),
    make('p', {}, 'Learnt for good: the iteration from which on every prediction is right. The last come first.'),
    make('ol', {reversed: true, start: order.length}, order.slice(0, 300).map(question => make('li', {},
      make('button', {type: 'button', class: 'link', click: () => choose(question.task, question.prompt, true)},
           words(question))))));
}

function showRun(run) {
  const t = evaluationAt(run), iter = run.iters[t];
  run.when.textContent = iter === iters[state.step] ? ''
    : `its ${iter < iters[state.step] ? 'latest' : 'first'} evaluation: iteration ${count(iter)}`;
  if (run.shown === t) return;
  run.shown = t;
  run.questions.forEach((_, q) => showCell(run, q, recorded(run, t, q)));
  for (const task of Object.values(run.tasks)) task.scores.textContent = scores(run, t, task.asked);
}

// 'training 97 of 98 right, held out 1 of 2'; '48 of 50 right' if all are training questions.
function scores(run, t, asked) {
  const groups = new Map();
  for (const {q, group} of asked) {
    const entry = recorded(run, t, q), [right, all] = groups.get(group) || [0, 0];
    if (entry) groups.set(group, [right + entry.right, all + 1]);
  }
  const name = group => group !== 'seen' ? `${group} ` : groups.size > 1 ? 'training ' : '';
  return [...groups].map(([group, [right, all]], i) =>
    `${name(group)}${count(right)} of ${count(all)}${i ? '' : ' right'}`).join(', ');
}

function showCell(run, q, entry) {
  const cell = run.cells[q], {name, answer, group, task} = run.questions[q], side = run.tasks[task].names.length;
  cell.className = [group === 'seen' ? '' : 'framed', entry ? entry.right ? '' : 'wrong' : 'none',
                    entry && entry.prob > DARK ? 'sure' : ''].filter(Boolean).join(' ');
  cell.style.setProperty('--p', entry ? entry.prob : 0);
  if (side > READABLE) return;  // there is no room for words, and describe() has them when they are wanted
  const said = entry ? plain(entry.said) : '', characters = [...said];
  if (side) {
    fill(cell, make('span', {class: ['long', 'longer'][Math.min(characters.length, 4) - 3]},
                    characters.length > 4 ? characters.slice(0, 2).join('') + '…' : said));
  } else {
    fill(cell, make('span', {class: 'name'}, `${plain(name)}: ${plain(answer)}`), make('span', {class: 'bar'}),
         make('span', {class: 'percent'}, entry ? percent(entry.prob) : 'not asked'),
         make('span', {class: 'said'}, entry && !entry.right ? said || '(nothing)' : ''));
  }
  describe(run, q);
}

// The words for a cell, which readers of the screen hear and pointers see.
function describe(run, q) {
  const {name, group} = run.questions[q], entry = recorded(run, evaluationAt(run), q);
  const words = [`${plain(name)}${group === 'seen' ? '' : ', ' + group}`];
  if (entry) {
    words.push(`prediction ${plain(entry.said) || 'nothing'}, ${entry.right ? 'right' : 'wrong'}`,
               `probability of the right answer ${percent(entry.prob)}`);
  } else words.push('not asked');
  run.cells[q].setAttribute('aria-label', words.join('; '));
  run.cells[q].title = words.join('\n');
}

// Mark the chosen question in all runs, and let Tab enter each grid and list at it, or else at its first cell.
function showChosen() {
  for (const run of runs) {
    const chosen = chosenIn(run);
    for (const {asked} of Object.values(run.tasks)) {
      const entrance = asked.some(({q}) => q === chosen) ? chosen : asked[0].q;
      for (const {q} of asked) {
        run.cells[q].setAttribute('aria-selected', q === chosen);
        run.cells[q].tabIndex = q === entrance ? 0 : -1;
      }
    }
  }
}

function pick(cell, look) {
  if (!cell) return;
  const {task, prompt} = runs[cell.dataset.run].questions[cell.dataset.q];
  choose(task, prompt, look);
  cell.focus({preventScroll: true});
}

// The arrow keys go to the next question that there is in their direction.
function move(event, rows) {
  const here = event.target.closest('[data-q]');
  if (!here || event.altKey || event.ctrlKey || event.metaKey) return;
  const a = rows.findIndex(row => row.includes(here)), b = rows[a].indexOf(here), all = rows.flat().filter(Boolean);
  const next = (down, across) => {
    for (let n = 1; n <= rows.length; n++) {
      const cell = rows[a + n * down]?.[b + n * across];
      if (cell) return cell;
    }
  };
  const targets = {ArrowDown: () => next(1, 0), ArrowUp: () => next(-1, 0), ArrowRight: () => next(0, 1),
                   ArrowLeft: () => next(0, -1), Home: () => all[0], End: () => all.at(-1),
                   Enter: () => here, ' ': () => here};
  if (!Object.hasOwn(targets, event.key)) return;
  event.preventDefault();
  const target = targets[event.key]();
  pick(target, target === here);
  target?.scrollIntoView({block: 'nearest'});
}

// ---------------------------------------------------------------------------------------------------------------------
// the learning curves

const STYLES = new Map([
  ['addition', 'wide c0'], ['subtraction', 'dashed c1'], ['facts', 'dashed c2'],
  ['held-out accuracy', 'dots c3'], ['probability of the right answer, held out', 'thin c3']]);
const whole = value => `${+(100 * value).toFixed(2)}`;

function showCurves() {
  const room = part('curves').clientWidth, columns = Math.max(1, Math.min(runs.length, Math.floor(room / 250)));
  const width = Math.max(220, Math.floor((room - 16 * (columns - 1)) / columns));
  fill(part('curves'), runs.map(run => {
    const own = Object.keys(run.curves).filter(name => !STYLES.has(name));
    const losses = run.loss.filter(value => value !== null);
    const series = Object.entries(run.curves).map(([name, values]) =>
      ({name, style: STYLES.get(name) || `c${4 + own.indexOf(name) % 4}`, iters: run.curve_iters, values}));
    const last = series.map(({name, values}) => `${name} ${percent(values.at(-1))}`).join(', ');
    const loss = {style: 'loss', iters: run.curve_iters, values: run.loss};
    return make('div', {}, make('h3', {}, run.name),
      make('p', {class: 'axis'}, 'accuracy (%)',
           'held-out accuracy' in run.curves && '; that of a task counts its held-out questions, too'),
      chart(axis, width, 130, `Learning curves of ${run.name}. At its last evaluation: ${last}`, series, 1, whole),
      make('p', {class: 'axis'}, 'validation loss, in nats per character'),
      chart(axis, width, 80, `Validation loss of ${run.name}: ${losses.at(-1)} at its last evaluation`, [loss],
            Math.max(...losses, 1e-9), value => `${+value.toPrecision(2)}`),
      make('p', {class: 'legend'}, series.map(({name, style}) => make('span', {class: 'entry'}, key(style), name))));
  }));
}

// ---------------------------------------------------------------------------------------------------------------------
// one question

// What the runs have recorded of the chosen question.
function showKnown() {
  const asking = runs.filter(run => chosenIn(run) !== undefined);
  if (!asking.length) {
    return fill(part('known'), state.prompt && make('p', {class: 'note'},
      'No recorded question. The dataset’s look like ', make('code', {}, visible(first.prompt))));
  }
  const {name, answer, task} = asking[0].questions[chosenIn(asking[0])];
  const width = Math.max(240, part('question').clientWidth - 26);
  const series = asking.map(run => {
    const entries = recordsOf(run, chosenIn(run));
    const [times, values] = ['iter', 'prob'].map(field => entries.map(entry => entry[field]));
    return {name: run.name, style: run.style, iters: times, values};
  });
  const most = Math.max(...series.flatMap(({values}) => values));
  const top = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1].find(p => p >= most);
  const last = series.map(({name, values}) => `${name} ${percent(values.at(-1))}`).join(', ');
  fill(part('known'),
    make('h2', {}, plain(name)),
    make('p', {class: 'facts'}, asking[0].tasks[task].label, alike(asking)
      ? [`, ${groupIn(asking[0])}; the right answer is `, make('b', {}, plain(answer))]
      : '; the runs differ in its right answer, or in whether it is held out'),
    make('div', {id: 'now'}),
    make('h3', {}, 'Probability of the right answer (%) over the iterations'),
    chart(axis, width, 150, `Probability of the right answer to ${plain(name)} over the iterations. ` +
          `At the last evaluation: ${last}`, series, top, whole),
    make('h3', {}, 'Predictions over the iterations'),
    asking.map(run => showChanges(run, changes(run, chosenIn(run)), width)));
  showNow();
}

function groupIn(run) {
  const {group} = run.questions[chosenIn(run)];
  return group === 'seen' ? 'a training question' : group;
}

// Whether all of these runs have the same right answer to the chosen question, and it is in the same group of theirs.
function alike(asking) {
  return new Set(asking.map(run => groupIn(run) + '\n' + run.questions[chosenIn(run)].answer)).size === 1;
}

// What they said at the slider's iteration.
function showNow() {
  if (!part('now')) return;
  const head = [runs.length > 1 ? 'run' : 'iteration', 'prediction', 'probability', 'learnt for good'];
  const asking = runs.filter(run => chosenIn(run) !== undefined), same = alike(asking);
  const rows = asking.map(run => {
    const q = chosenIn(run), t = evaluationAt(run), entry = recorded(run, t, q);
    return make('tr', {},
      make('th', {scope: 'row'}, runs.length > 1 ? [key(run.style), run.name] : count(run.iters[t]),
           !same && make('small', {}, `${groupIn(run)}; right: ${plain(run.questions[q].answer)}`)),
      make('td', {class: entry && !entry.right && 'wrong'}, entry ? quoted(entry.said) + mark(entry.right) : 'not asked'),
      make('td', {class: 'p'}, entry ? percent(entry.prob) : ''), make('td', {}, learntText(run.learnt[q])));
  });
  fill(part('now'), make('table', {}, make('thead', {}, make('tr', {}, head.map(text =>
    make('th', {scope: 'col', title: text.startsWith('learnt') && 'from then on every prediction is right'}, text)))),
                         make('tbody', {}, rows)));
}

function showChanges(run, pieces, width) {
  const times = pieces.length === 2 ? 'once' : `${count(pieces.length - 1)} times`;
  const text = pieces.length > 1 ? `the prediction changed ${times}` : 'always the same prediction';
  return [strip(axis, width, `${run.name}: ${text}`, run.style, pieces, recordsOf(run, chosenIn(run)).at(-1)?.iter),
    make('details', {}, make('summary', {}, runs.length > 1 ? `${run.name}: ${text}` : text),
      make('ol', {class: 'changes'}, pieces.map(({iter, said, right}) => make('li', {class: right ? 'right' : 'wrong'},
        make('button', {type: 'button', class: 'link', click: () => axis.go(iters.indexOf(iter))},
             `${count(iter)}: ${quoted(said)}${mark(right)}`)))))];
}

// What the models in the page answer, step by step.
function showLive() {
  const answers = runs.map(answerOf), known = runs.some(run => chosenIn(run) !== undefined);
  const way = (value, text) => make('label', {}, make('input', {
    type: 'radio', name: 'along', id: `along-${value}`, checked: state.along === value,
    change: () => { state.along = value; showLive(); }}), text);
  fill(part('live'), make('h2', {}, 'The model in this page'),
       make('p', {class: 'note'}, 'Choose a step of the answer to see below where the model attends.'),
       known && make('fieldset', {}, make('legend', {}, 'Steps of'), way('own', 'its own answer'),
                     way('right', 'the right answer')),
       answers.map((answer, i) => liveOf(runs[i], answer)));
  const heard = state.prompt && answers.map(({unknown, steps}, i) => runs[i].name + (unknown.length ? ' cannot read this'
    : ` answers ${visible(writtenIn(runs[i], steps))}`)).join('; ');
  if (part('heard').textContent !== heard) part('heard').textContent = heard;
}

function writtenIn(run, steps) {
  return steps.map(({taken}) => run.vocabulary[taken]).join('');
}

function liveOf(run, {unknown, right, steps}) {
  const {iter, source, model} = modelAt(run), asked = run.iters[evaluationAt(run)];
  const text = [...state.prompt], hidden = text.length - model.block_size;
  const missing = () => make('p', {class: 'error'}, `The vocabulary of ${several(run.vocabulary.length, 'character')} ` +
    `has no ${unknown.map(ch => `“${visible(ch)}”`).join(', ')}. It has ${vocabularyText(run)}`);
  const answer = () => [
    hidden > 0 && make('p', {class: 'note'}, `The prompt is longer than the ${model.block_size} characters of context, ` +
      'so the model sees only its end: ', make('code', {}, visible(text.slice(hidden).join('')))),
    make('p', {class: 'written'},
      make('code', {}, visible(state.prompt), make('b', {}, visible(writtenIn(run, steps)))),
      ` with probability ${percent(steps.reduce((p, {probs, taken}) => p * probs[taken], 1))}`),
    make('ol', {class: 'steps'}, steps.map((step, n) => stepCard(run, step, n, right))),
    attentionOf(run, steps[run.chosen])];
  return make('section', {class: 'live', 'aria-label': `the model of ${run.name}`},
    runs.length > 1 && make('h3', {}, key(run.style), run.name),
    make('p', {class: 'note'}, `This is the model of iteration ${count(iter)} (${source})`,
         iter !== asked && `, the nearest to iteration ${count(asked)} in this page. Weights of other iterations are kept ` +
           'with --keep_weights.'),
    vocabularies.size > 1 && make('p', {class: 'note'}, `Characters: ${vocabularyText(run)}`),
    unknown.length ? missing() : steps.length ? answer() : make('p', {class: 'note'}, 'Type at least one character.'));
}

// The likeliest characters of one step; the one that was taken is always among them.
function stepCard(run, {probs, taken}, n, right) {
  const order = [...probs.keys()].sort((a, b) => probs[b] - probs[a]).slice(0, 4);
  if (!order.includes(taken)) order[3] = taken;
  const others = Math.max(0, 1 - order.reduce((sum, id) => sum + probs[id], 0));
  const wrong = right && right[n] !== run.vocabulary[taken], name = id => visible(run.vocabulary[id]);
  return make('li', {}, make('button', {
    type: 'button', id: `run${run.number}-step${n}`, class: wrong ? 'step wrong' : 'step', 'aria-pressed': n === run.chosen,
    'aria-label': `step ${n + 1}: ${order.map(id => `${name(id)}, ${percent(probs[id])}`).join('; ')}`,
    title: 'show where the model looks at this step', click: () => { run.chosen = n; showLive(); }},
    make('span', {class: 'big'}, name(taken)),
    order.map(id => make('span', {class: id === taken ? 'option taken' : 'option'},
      make('span', {class: 'ch'}, name(id)), make('span', {class: 'bar', '--p': probs[id]}),
      make('span', {class: 'percent'}, percent(probs[id])))),
    probs.length > order.length && make('span', {class: 'rest'}, `others ${percent(others)}`)));
}

function attentionOf(run, {context, attention}) {
  const names = context.map(id => visible(run.vocabulary[id]));
  const pairs = attention.flatMap((heads, layer) => heads.map((looks, head) => ({layer, head, looks})));
  run.pair = Math.min(run.pair, pairs.length - 1);
  const {looks} = pairs[run.pair], last = looks.at(-1);
  const order = [...last.keys()].sort((a, b) => last[b] - last[a]).slice(0, 4);
  return make('div', {class: 'looks'}, names.length <= 48 && attentionMatrix(names, looks), make('div', {},
    make('p', {}, 'Attention at this step, from ', make('code', {}, names.at(-1)), ' (the last row) to'),
    make('ul', {}, order.map(s => make('li', {}, make('code', {}, names[s]), ` ${percent(last[s])} `,
                                       make('small', {}, `(position ${s + 1})`)))),
    pairs.length > 1 && make('select', {
      id: `run${run.number}-head`, 'aria-label': 'layer and head',
      change: event => { run.pair = event.target.selectedIndex; showLive(); }
    }, pairs.map(({layer, head}, i) =>
      make('option', {selected: i === run.pair}, `layer ${layer + 1}, head ${head + 1}`)))));
}

function vocabularyText({vocabulary}) {
  const more = vocabulary.length - 120;
  return vocabulary.slice(0, 120).map(visible).join(' ') + (more > 0 ? ` … and ${count(more)} more` : '');
}

// ---------------------------------------------------------------------------------------------------------------------
// what the user does

// Move the slider to a place in `iters`, and show what depends on it.
function showStep(step) {
  state.step = step;
  part('slider').value = step;
  part('slider').setAttribute('aria-valuetext', `iteration ${count(iters[step])}`);
  part('iteration').textContent = `iteration ${count(iters[step])}`;
  part('before').disabled = step === 0;
  part('after').disabled = step === iters.length - 1;
  runs.forEach(showRun);
  moveCursors();
  showNow();
  showLive();
}

// Show a question, or with task '' a prompt of one's own; look: bring it into view if it is not.
function choose(task, prompt, look) {
  Object.assign(state, {task, prompt});
  if (part('prompt').value !== prompt) part('prompt').value = prompt;
  showChosen();
  showKnown();
  showLive();
  if (look && part('question').getBoundingClientRect().top > 0.7 * innerHeight) {
    const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
    part('question').scrollIntoView({behavior: calm ? 'auto' : 'smooth'});
  }
}

function play(on) {
  clearInterval(state.timer);
  state.timer = on && iters.length > 1 ? setInterval(() => {
    showStep(state.step + 1);
    if (state.step === iters.length - 1) play(false);
  }, 120) : 0;
  part('play').textContent = state.timer ? 'Pause' : 'Play';
}

part('play').addEventListener('click', () => {
  if (!state.timer && state.step === iters.length - 1) showStep(0);
  play(!state.timer);
});
part('slider').max = iters.length - 1;
part('slider').addEventListener('input', event => axis.go(+event.target.value));
part('before').addEventListener('click', () => axis.go(state.step - 1));
part('after').addEventListener('click', () => axis.go(state.step + 1));
part('prompt').addEventListener('keydown', event => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) event.preventDefault();
});
part('prompt').addEventListener('input', event => {
  let prompt = event.target.value;
  if (!runs.some(run => run.ids.has('−'))) prompt = prompt.replaceAll('−', '-');  // as this page writes it
  const known = runs.flatMap(run => run.questions).find(question => question.prompt === prompt);
  choose(known ? known.task : '', prompt, false);
});
let shownWidth = innerWidth;
addEventListener('resize', () => {
  if (shownWidth === innerWidth) return;  // a phone's keyboard or address bar has come or gone
  shownWidth = innerWidth;
  showCurves();
  showKnown();
});

const vocabularies = new Set(runs.map(vocabularyText));
const first = runs[0].questions.find(question => question.group !== 'seen') || runs[0].questions[0];
fill(part('hint'), 'e.g. ', make('code', {}, visible(first.prompt)), '; Shift+Enter begins a new line (↵). ',
     vocabularies.size > 1 ? 'Each model has its own characters, see below.' : `Characters: ${[...vocabularies][0]}`);
part('dot').hidden = !runs.some(run => Object.values(run.tasks).some(({names}) => names.length > READABLE));
document.title = `${runs.map(run => run.name).join(', ')}: ${document.title}`;
part('runs').append(...runs.map(buildRun));
choose(first.task, first.prompt, false);
showCurves();
showStep(state.step);
