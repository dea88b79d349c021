// The forward pass of model.py by hand: from the ids of a text to the probabilities of its next token.
//
// A vector is an array of numbers, a text of T tokens is a list of T vectors, and a matrix of weights lies row by row, with
// a row for each output, as in torch. Numbers are doubles, so the logits are torch's but for its own rounding in float32.

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
  return Uint8Array.from(atob(base64), ch => ch.charCodeAt(0)).buffer;
}

// Logits of the token after `ids`, of which the model sees the last block_size, and attention[layer][head][position], which
// holds how much a position looks at each one up to itself.
function forward(model, ids) {
  ids = ids.slice(-model.block_size);
  const w = model.weights, C = model.n_embd, activation = model.activation === 'gelu_new' ? geluNew : gelu;
  const row = (matrix, i) => matrix.subarray(i * C, (i + 1) * C), attention = [];
  let x = ids.map((id, t) => add(row(w['transformer.wte.weight'], id), row(w['transformer.wpe.weight'], t)));
  for (let layer = 0; layer < model.n_layer; layer++) {
    const h = `transformer.h.${layer}.`;
    const norm = (x, name) => layerNorm(x, w[h + name + '.weight'], w[h + name + '.bias']);
    const linear = (x, name) => multiply(w[h + name + '.weight'], x, w[h + name + '.bias']);
    const qkv = x.map(v => linear(norm(v, 'ln_1'), 'attn.c_attn'));
    const {y, looks} = attend(qkv, C, model.n_head);
    attention.push(looks);
    x = x.map((v, t) => add(v, linear(y[t], 'attn.c_proj')));
    x = x.map(v => add(v, linear(linear(norm(v, 'ln_2'), 'mlp.c_fc').map(activation), 'mlp.c_proj')));
  }
  const last = layerNorm(x[x.length - 1], w['transformer.ln_f.weight'], w['transformer.ln_f.bias']);
  return {logits: multiply(w['transformer.wte.weight'], last), attention};  // the output layer is tied to the embeddings
}

// Causal self-attention: each head mixes the values of the positions so far, by how well their keys match the query.
function attend(qkv, C, n_head) {
  const size = C / n_head, y = qkv.map(() => new Float64Array(C)), looks = [];
  for (let head = 0; head < n_head; head++) {
    const start = head * size;
    looks.push(qkv.map((q, t) => {
      const scores = qkv.slice(0, t + 1).map(k => {
        let dot = 0;
        for (let i = start; i < start + size; i++) dot += q[i] * k[C + i];
        return dot / Math.sqrt(size);
      });
      const weights = softmax(scores);
      weights.forEach((weight, s) => {
        for (let i = start; i < start + size; i++) y[t][i] += weight * qkv[s][2 * C + i];
      });
      return weights;
    }));
  }
  return {y, looks};
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
  const steps = [];
  while (steps.length < (forced ? forced.length : limit)) {
    const {logits, attention} = forward(model, ids), probs = softmax(logits);
    const taken = forced ? forced[steps.length] : probs.reduce((best, p, i) => p > probs[best] ? i : best, 0);
    steps.push({context: ids.slice(-model.block_size), probs, taken, attention});
    ids = [...ids, taken];
    if (!forced && stops.includes(taken)) break;
  }
  return steps;
}
