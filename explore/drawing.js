// What draws the page and knows nothing of runs: elements, texts, curves over the iterations, and attention.
//
// All text comes into the page as text nodes and attributes, never as HTML, so a strange name cannot become anything else.

const SVG = new Set(['svg', 'g', 'path', 'line', 'rect', 'circle', 'text', 'title']);

// An element with attributes, CSS variables (--name), listeners (functions) and children.
function make(tag, attributes = {}, ...children) {
  const element = SVG.has(tag) ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (name.startsWith('--')) element.style.setProperty(name, value);
    else if (name.startsWith('aria-')) element.setAttribute(name, value);
    else if (value !== false && value !== undefined) element.setAttribute(name, value === true ? '' : value);
  }
  fill(element, children);
  return element;
}

// Put children in the place of what an element holds; what has the focus keeps it, if it has an id.
function fill(element, ...children) {
  const focused = element.contains(document.activeElement) && document.activeElement.id;
  element.replaceChildren(...children.flat(Infinity).filter(child => child !== undefined && child !== false));
  if (focused) document.getElementById(focused)?.focus({preventScroll: true});
}

// ---------------------------------------------------------------------------------------------------------------------
// texts

const count = n => n.toLocaleString('en');
const several = (n, what) => `${count(n)} ${what}${n === 1 ? '' : 's'}`;
const plain = text => text.replace(/-(?=\d)/g, '−').trim();
const quoted = text => text.trim() ? `“${plain(text)}”` : 'nothing';
const SIGNS = {' ': '␣', '\n': '↵', '\r': '␍', '\t': '⇥'};  // and the code of whatever else cannot be seen
const visible = text => text.replace(/[\p{Cc}\p{Cf}\p{Z}]/gu,
  ch => SIGNS[ch] || `U+${ch.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`);
const mark = right => right ? ' ✓' : ' ✗';

function percent(p) {
  if (p === null) return 'unknown';
  if (p < 0.00005) return '< 0.01 %';
  if (p > 0.99995) return '> 99.99 %';
  return (100 * p).toFixed(p > 0.99 || p < 0.01 ? 2 : 1) + ' %';
}

// ---------------------------------------------------------------------------------------------------------------------
// curves over the iterations

const LEFT = 40, RIGHT = 10;  // the margins of all of them, so that they stand one below the other
const cursors = new Set();  // functions that move a cursor to the slider's iteration, and say whether it is still shown

// An empty picture and its scale. A pointer that is pressed in it moves the slider. axis: {iters, now(), go(step)}.
function timeline(axis, width, height, attributes) {
  const svg = make('svg', {width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', ...attributes});
  const {iters} = axis, inner = width - LEFT - RIGHT, range = iters.at(-1) - iters[0] || 1;
  const x = iter => LEFT + inner * (iter - iters[0]) / range, cursor = make('line', {class: 'cursor', y1: 0, y2: height});
  const seek = event => {
    if (event.type === 'pointermove' && !(event.buttons & 1)) return;
    const iter = iters[0] + range * (event.clientX - svg.getBoundingClientRect().left - LEFT) / inner;
    axis.go(iters.reduce((best, value, i) => Math.abs(value - iter) < Math.abs(iters[best] - iter) ? i : best, 0));
  };
  svg.addEventListener('pointerdown', seek);
  svg.addEventListener('pointermove', seek);
  const place = () => {
    cursor.setAttribute('x1', x(axis.now()));
    cursor.setAttribute('x2', x(axis.now()));
    return svg.isConnected;
  };
  cursors.add(place);
  place();
  return {svg, x, cursor};
}

function moveCursors() {
  for (const place of cursors) if (!place()) cursors.delete(place);
}

// About n round numbers from 0 to `most`.
function ticks(most, n) {
  const raw = most / n || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find(k => k * power >= raw) * power;
  return Array.from({length: Math.floor(most / step + 1e-9) + 1}, (_, i) => i * step);
}

// series: list of {style, iters, values}, with null where a value is missing. top: the end of the vertical axis.
function chart(axis, width, height, label, series, top, format) {
  const {svg, x, cursor} = timeline(axis, width, height, {class: 'chart', 'aria-label': label});
  const above = 6, below = 18, y = value => above + (height - above - below) * (1 - value / top);
  for (const value of ticks(top, 2)) {
    svg.append(make('line', {class: 'rule', x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value)}),
               make('text', {x: LEFT - 5, y: y(value) + 4, 'text-anchor': 'end'}, format(value)));
  }
  for (const iter of ticks(axis.iters.at(-1), Math.max(1, width / 80)).filter(iter => iter >= axis.iters[0])) {
    const text = iter < 1000 ? `${+iter.toPrecision(3)}` : `${iter / 1000}k`;
    svg.append(make('text', {x: x(iter), y: height - 4, 'text-anchor': 'middle'}, text));
  }
  for (const {style, iters, values} of series) {
    svg.append(curve(style, iters.map(x), values.map(value => value === null ? null : y(value))));
  }
  cursor.setAttribute('y2', height - below);  // so it crosses no number
  svg.append(cursor);
  return svg;
}

function curve(style, xs, ys) {
  if (style.includes('dots')) {
    return make('g', {class: style}, ys.map((y, i) => y !== null && make('circle', {cx: xs[i], cy: y, r: 1.6})));
  }
  const to = i => i && ys[i - 1] !== null ? 'L' : 'M';
  const path = ys.map((y, i) => y === null ? '' : `${to(i)}${xs[i].toFixed(1)} ${y.toFixed(1)}`);
  return make('path', {class: style, d: path.join('') + (ys.length === 1 ? 'h1' : '')});
}

// What a curve looks like, for a legend.
function key(style) {
  return make('svg', {class: 'key', width: 22, height: 10, 'aria-hidden': true}, style.includes('dots')
    ? make('g', {class: style}, [4, 11, 18].map(cx => make('circle', {cx, cy: 5, r: 2})))
    : make('path', {class: style, d: 'M0 5H22'}));
}

// The predictions of a question over the iterations: a piece for each {iter, said, right} until the next one, and to `end`.
function strip(axis, width, label, style, pieces, end) {
  const height = 22, {svg, x, cursor} = timeline(axis, width, height, {class: 'strip', 'aria-label': label});
  pieces.forEach(({iter, said, right}, i) => {
    const from = Math.min(x(iter), x(end) - 3);  // one that begins at the end can be seen as well
    const to = Math.max(x(pieces[i + 1]?.iter ?? end), from + 1), text = plain(said);
    svg.append(make('g', {class: right ? 'right' : 'wrong'},
      make('rect', {x: from, y: 2, width: to - from, height: height - 4}),
      make('title', {}, `from ${count(iter)}: ${quoted(said)}, ${right ? 'right' : 'wrong'}`),
      to - from > 8 * text.length + 4
        && make('text', {x: (from + to) / 2, y: height / 2 + 4, 'text-anchor': 'middle'}, text)));
  });
  svg.append(make('path', {class: style, d: `M4 ${height / 2}H${LEFT - 8}`}), cursor);
  return svg;
}

// ---------------------------------------------------------------------------------------------------------------------
// attention

// Where each position looks: a row for each, with a cell for each one up to itself. The last row is framed.
function attentionMatrix(names, looks) {
  const n = names.length, cell = Math.min(22, Math.floor(290 / n)), edge = 18, size = n * cell + edge + 2;
  const svg = make('svg', {class: 'attention', width: size, height: size, viewBox: `0 0 ${size} ${size}`, role: 'img',
                           'aria-label': 'attention: each row is a position, and each column one that it looks at'});
  names.forEach((name, t) => {
    const place = edge + (t + 0.5) * cell, font = Math.min(13, cell);
    svg.append(make('text', {x: place, y: edge - 5, 'text-anchor': 'middle', 'font-size': font}, name),
               make('text', {x: edge - 5, y: place + 4, 'text-anchor': 'end', 'font-size': font}, name));
    looks[t].forEach((weight, s) => svg.append(
      make('rect', {class: 'cell', x: edge + s * cell, y: edge + t * cell, width: cell, height: cell, '--p': weight},
           make('title', {}, `${name} looks at ${names[s]}: ${percent(weight)}`))));
  });
  svg.append(make('rect', {class: 'last', x: edge, y: edge + (n - 1) * cell, width: n * cell, height: cell}));
  return svg;
}
