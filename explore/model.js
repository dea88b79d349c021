// The forward pass of model.py by hand: from the ids of a text to the probabilities of its next token.
//
// A vector is an array of numbers, and a matrix of weights lies row by row, with a row for each output, as in torch.
// Numbers are doubles, so the logits are torch's but for its own rounding in float32.

// The model of what explore.py writes: GPTConfig's fields, the parameters' names and sizes, and their values in base64.
function loadModel({config, parameters, weights}) {
  const model = {...config, weights: {}}, values = new Float32Array(bytes(weights));
  let start = 0;
  for (const [name, size] of parameters) {
    model.weights[name] = values.subarray(start, start += size);
  }
  return model;
}

function bytes(base64) {
  const text = atob(base64), array = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) array[i] = text.charCodeAt(i);
  return array.buffer;
}

// Logits of the token after `ids`, of which the model sees the last block_size, and attention[layer][head][position],
// which holds how much a position looks at each one up to itself. past: what readToken made of an earlier text. A position
// depends on no later one, so where both texts begin alike, nothing is computed again (a cache of keys and values).
function forward(model, ids, past = []) {
  ids = ids.slice(-model.block_size);
  const same = ids.findIndex((id, t) => past[t]?.id !== id);
  past.length = same < 0 ? ids.length : same;
  while (past.length < ids.length) past.push(readToken(model, ids[past.length], past));
  const w = model.weights, last = layerNorm(past.at(-1).x, w['transformer.ln_f.weight'], w['transformer.ln_f.bias']);
  const attention = past[0].looks.map((heads, layer) =>
    heads.map((_, head) => past.map(({looks}) => looks[layer][head])));
  return {logits: multiply(w['transformer.wte.weight'], last), attention};  // the output layer is tied to the embeddings
}

// What the layers make of one more token, after the positions in `past`: its last vector x, and for each layer its query,
// key and value in one vector, and where its heads look.
function readToken(model, id, past) {
  const w = model.weights, C = model.n_embd, activation = model.activation === 'gelu_new' ? geluNew : gelu;
  const row = (matrix, i) => matrix.subarray(i * C, (i + 1) * C), qkv = [], looks = [];
  let x = add(row(w['transformer.wte.weight'], id), row(w['transformer.wpe.weight'], past.length));
  for (let layer = 0; layer < model.n_layer; layer++) {
    const h = `transformer.h.${layer}.`;
    const norm = (x, name) => layerNorm(x, w[h + name + '.weight'], w[h + name + '.bias']);
    const linear = (x, name) => multiply(w[h + name + '.weight'], x, w[h + name + '.bias']);
    qkv.push(linear(norm(x, 'ln_1'), 'attn.c_attn'));
    const {y, heads} = attend([...past.map(position => position.qkv[layer]), qkv[layer]], C, model.n_head);
    looks.push(heads);
    x = add(x, linear(y, 'attn.c_proj'));
    x = add(x, linear(linear(norm(x, 'ln_2'), 'mlp.c_fc').map(activation), 'mlp.c_proj'));
  }
  return {id, x, qkv, looks};
}

// Causal self-attention of the last position: each head mixes the values of all by how well their keys match its query.
function attend(qkv, C, n_head) {
  const size = C / n_head, query = qkv.at(-1), y = new Float64Array(C), heads = [];
  for (let start = 0; start < C; start += size) {
    const weights = softmax(qkv.map(key => {
      let dot = 0;
      for (let i = start; i < start + size; i++) dot += query[i] * key[C + i];
      return dot / Math.sqrt(size);
    }));
    weights.forEach((weight, s) => {
      for (let i = start; i < start + size; i++) y[i] += weight * qkv[s][2 * C + i];
    });
    heads.push(weights);
  }
  return {y, heads};
}

function add(a, b) {
  return Float64Array.from(a, (value, i) => value + b[i]);
}

// The product of a matrix and a vector, plus a bias if there is one.
function multiply(matrix, x, bias) {
  const y = new Float64Array(matrix.length / x.length);
  for (let row = 0, i = 0; row < y.length; row++) {
    let sum = bias ? bias[row] : 0;
    for (let column = 0; column < x.length; column++) sum += matrix[i++] * x[column];
    y[row] = sum;
  }
  return y;
}

function layerNorm(x, weight, bias) {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  return x.map((value, i) => (value - mean) / Math.sqrt(variance + 1e-5) * weight[i] + (bias ? bias[i] : 0));
}

function softmax(scores) {
  const most = scores.reduce((a, b) => Math.max(a, b)), powers = scores.map(score => Math.exp(score - most));
  const total = powers.reduce((a, b) => a + b);
  return powers.map(power => power / total);
}

function gelu(x) {
  return x / 2 * (1 + erf(x / Math.SQRT2));
}

// GPT-2's approximation of it
function geluNew(x) {
  return x / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

// The error function by a series whose terms are all positive, so none of its digits cancel; from 6 on it is 1 in doubles.
function erf(x) {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x, sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) sum += term *= 2 * x * x / (2 * n + 1);
  return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
}

// The steps of an answer to the text `ids`: at each one the context that the model sees, the probabilities of the next
// token, the one that is taken, and the attention. The likeliest is taken, until one is in `stops` or there are `limit` of
// them; or, if `forced` is given, the next one of these.
function answerSteps(model, ids, limit, stops, forced) {
  const steps = [], past = [];
  while (steps.length < (forced ? forced.length : limit)) {
    const {logits, attention} = forward(model, ids, past), probs = softmax(logits);
    const taken = forced ? forced[steps.length] : probs.reduce((best, p, i) => p > probs[best] ? i : best, 0);
    steps.push({context: ids.slice(-model.block_size), probs, taken, attention});
    ids = [...ids, taken];
    if (!forced && stops.includes(taken)) break;
  }
  return steps;
}
