// One training step of a small GPT on a CPU: the gradients of a batch, and the clipped AdamW step that follows them.
// fused_step.py compiles this file and calls the four functions at its end. The model is nanoGPT's without biases and
// dropout; parameters and gradients come in the order of model.parameters().
//
// Why it is fast:
// - Each lane of a SIMD register belongs to another window or prefix, see below and fused_ops.h.
// - A block of windows goes through the whole network, forward and backward, before the next block begins, so its
//   activations stay in the cache.
// - What a position computes depends only on its prefix: the tokens of its window up to it. Windows of a small text have
//   many prefixes in common, the more so as they come sorted. So a block computes each of its prefixes once. Only in
//   attention are the lanes windows; everywhere else they are prefixes. Rows of floats lead from one to the other.
// - What the first layer computes before attention depends only on a token and its position. So it is computed once for
//   each such pair and not for each prefix: the rows of a table, which hold x, and q, k and v.
// - LayerNorms have no weights here, because these are multiplied into the matrix that follows: W (w * y) = (W diag(w)) y
// - With one head, proj is multiplied into the matrix that makes v, because attention is linear in v.

#include <atomic>
#include <numeric>
#include <vector>

#include "fused_ops.h"

// The batch is summed in this many parts, and a thread that has finished one takes the next one. The parts are added in
// their order, so that the result is the same to the bit, however many threads there are and whichever is slower. More
// parts would keep more threads busy, but each has a table of gradients, which is slow if it is large.
constexpr int PARTS = 4;

// --------------------------------------------------------------------------------------------------------------------
// What is kept in memory

struct Layer { float *ln_1, *qkv, *proj, *ln_2, *fc, *proj_2; };
struct AfterNorm { float *matrix, *ln; int rows; };  // a matrix that follows a LayerNorm, and that LayerNorm's weights

struct Tensors {  // parameters or gradients, one after another
    float *wte, *wpe, *ln_f, *head, *x, *qkv;  // head is the output layer, which nanoGPT ties to wte; x and qkv: the table
    std::vector<Layer> layers;
    std::vector<AfterNorm> after_norms;
    Tensors(const Shape& s, std::vector<float>& memory) {
        const int C = s.C, F = s.F;
        auto take = [next = memory.data()](int n) mutable { return (next += n) - n; };
        wte = take(s.V * C), wpe = take(s.T * C);
        for (int i = 0; i < s.L; i++) {
            layers.push_back({take(C), take(3 * C * C), take(C * C), take(C), take(F * C), take(C * F)});
            after_norms.push_back({layers[i].qkv, layers[i].ln_1, 3 * C});
            after_norms.push_back({layers[i].fc, layers[i].ln_2, F});
        }
        ln_f = take(C), head = take(s.V * C), x = take(s.table_rows() * padded(s.C)), qkv = take(0);
        after_norms.push_back({head, ln_f, s.V});
    }
};

struct LayerActivations { Norm ln_1, ln_2; vec *qkv, *att, *y, *gelu, *gelu_slope; };

// The token that follows a position of a window: after which prefix, where its logit is, and its weight in the loss
struct Target { int prefix, logit; float weight; };

struct Activations {  // of a block: features x positions
    std::vector<std::vector<vec>> memory;
    int N;                    // its prefixes fill the lanes of N positions
    std::vector<float> rows;  // one for each prefix, of C or 3 C floats, and one more, which is 0 where it is used
    // The number of the row that each lane is copied from or to. Where lanes are windows, at each of their positions:
    std::vector<int> pair;    // the table's row of the token and the position
    std::vector<int> prefix;  // the row of the prefix
    std::vector<int> owned;   // the same if the window is the first with this prefix, or else the row of zeros
    // Where lanes are prefixes:
    std::vector<int> pair_of_prefix;  // the table's row of the last token and its position
    std::vector<int> all;             // the prefix's own row: 0, 1, 2, ...
    std::vector<int> last;  // the prefixes of the window that take_block took last
    std::vector<Target> targets;
    vec *weight, *x, *logits, *d_x, *d_y, *d_qkv, *d_att, *d_hidden, *target_logit, loss;
    std::vector<LayerActivations> layers;
    Norm ln_f;
    explicit Activations(const Shape& s)
        : rows((s.lanes() + 1) * padded(3 * s.C)), pair(s.lanes()), prefix(pair), owned(pair), pair_of_prefix(pair),
          all(pair), last(s.T), targets(s.lanes()) {
        const int C = s.C, F = s.F, P = s.P();
        std::iota(all.begin(), all.end(), 0);
        auto take = [&](int n) { return memory.emplace_back(n + LANES).data(); };
        auto norm = [&] { return Norm{take(P * C), take(P)}; };
        weight = take(P), target_logit = take(P), x = take(P * C), logits = take(P * s.V);
        d_x = take(P * C), d_y = take(P * C), d_qkv = take(P * 3 * C), d_att = take(s.T * s.T), d_hidden = take(P * F);
        for (int i = 0; i < s.L; i++)
            layers.push_back({norm(), norm(), take(P * 3 * C), take(P * s.H * s.T), take(P * C), take(P * F),
                              take(P * F)});
        ln_f = norm();
    }
};

// --------------------------------------------------------------------------------------------------------------------
// The network, forward and backward

static void sum_into(float* sum, const float* x, int n) {
    for (int i = 0; i < n; i++) sum[i] += x[i];
}

// A block of the table's rows: row t * V + v is that of token v at position t. Rows after the last one are 0.
static void make_table(const Shape& s, const Tensors& w, const Activations& a, int block) {
    const int C = s.C, P = s.P(), begin = block * s.lanes();
    for (int row = begin; row < std::min(begin + s.lanes(), s.T * s.V); row++)
        for (int c = 0; c < C; c++) w.x[row * padded(C) + c] = w.wte[row % s.V * C + c] + w.wpe[row / s.V * C + c];
    load(a.x, w.x + begin * padded(C), a.all.data(), C, P);
    normalize(a.x, a.layers[0].ln_1, P, C);
    linear(a.layers[0].qkv, w.layers[0].qkv, a.layers[0].ln_1.y, 3 * C, C, P);
    store(a.layers[0].qkv, w.qkv + begin * padded(3 * C), a.all.data(), 3 * C, P, false);
}

// Turns the gradients of the table's rows into those of the embeddings and of the first layer's folded qkv matrix
static void table_backward(const Shape& s, const Tensors& w, const Activations& a, const Tensors& g, const Tensors& d,
                           int block) {
    const int C = s.C, P = s.P(), begin = block * s.lanes();
    load(a.x, w.x + begin * padded(C), a.all.data(), C, P);
    normalize(a.x, a.layers[0].ln_1, P, C);
    load(a.d_x, d.x + begin * padded(C), a.all.data(), C, P);
    load(a.d_qkv, d.qkv + begin * padded(3 * C), a.all.data(), 3 * C, P);
    linear_backward(a.d_y, g.layers[0].qkv, a.d_qkv, w.layers[0].qkv, a.layers[0].ln_1.y, 3 * C, C, P);
    normalize_backward(a.d_x, a.d_y, a.layers[0].ln_1, P, C, true);
    store(a.d_x, d.x + begin * padded(C), a.all.data(), C, P, false);
    for (int row = begin; row < std::min(begin + s.lanes(), s.T * s.V); row++) {
        sum_into(g.wte + row % s.V * C, d.x + row * padded(C), C);
        sum_into(g.wpe + row / s.V * C, d.x + row * padded(C), C);
    }
}

static void forward(const Shape& s, const Tensors& w, Activations& a) {
    const int C = s.C, F = s.F, P = s.P(), N = a.N;
    load(a.x, w.x, a.pair_of_prefix.data(), C, N);
    for (int i = 0; i < s.L; i++) {
        const Layer& m = w.layers[i];
        const LayerActivations& l = a.layers[i];
        if (i > 0) {
            normalize(a.x, l.ln_1, N, C);
            linear(l.qkv, m.qkv, l.ln_1.y, 3 * C, C, N);
            store(l.qkv, a.rows.data(), a.all.data(), 3 * C, N, false);
        }
        load(l.qkv, i ? a.rows.data() : w.qkv, i ? a.prefix.data() : a.pair.data(), 3 * C, P);  // lanes become windows
        attend(s, l.qkv, l.att, l.y);
        std::fill_n(a.rows.begin() + (N - 1) * LANES * padded(C), LANES * padded(C), 0.0f);  // lanes left over stay 0
        store(l.y, a.rows.data(), a.prefix.data(), C, P, false);  // windows that have a prefix in common write the same
        load(l.y, a.rows.data(), a.all.data(), C, N);  // and lanes become prefixes again
        if (s.H > 1) linear(a.x, m.proj, l.y, C, C, N, true);
        else for (int j = 0; j < N * C; j++) a.x[j] += l.y[j];
        normalize(a.x, l.ln_2, N, C);
        linear(l.gelu, m.fc, l.ln_2.y, F, C, N);
        for (int j = 0; j < N * F; j++) l.gelu[j] = gelu(l.gelu[j], l.gelu_slope[j]);
        linear(a.x, m.proj_2, l.gelu, C, F, N, true);
    }
    normalize(a.x, a.ln_f, N, C);
    linear(a.logits, w.head, a.ln_f.y, s.V, C, N);
}

// Adds the windows' mean losses, weighted. The logits become their gradients: the prefix's weight * softmax, minus the
// weights of the windows that go on with that token.
static void cross_entropy(const Shape& s, Activations& a) {
    std::fill_n(a.target_logit, a.N, vec{});
    for (auto [p, z, weight] : a.targets) a.target_logit[p / LANES][p % LANES] += weight * a.logits[z][p % LANES];
    for (int p = 0; p < a.N; p++) {
        vec *z = a.logits + p * s.V, max, total = exp_all(z, s.V, 1.0f, max), factor = a.weight[p] / total;
        for (int v = 0; v < s.V; v++) z[v] *= factor;
        for (int l = 0; l < LANES; l++) total[l] = std::log(total[l]);
        a.loss += a.weight[p] * (max + total) - a.target_logit[p];
    }
    for (auto [p, z, weight] : a.targets) a.logits[z][p % LANES] -= weight;
}

static void backward(const Shape& s, const Tensors& w, Activations& a, const Tensors& g) {
    const int C = s.C, F = s.F, P = s.P(), N = a.N;
    vec* d_y = a.d_y;
    linear_backward(d_y, g.head, a.logits, w.head, a.ln_f.y, s.V, C, N);
    normalize_backward(a.d_x, d_y, a.ln_f, N, C, false);
    for (int i = s.L - 1; i >= 0; i--) {
        const Layer &m = w.layers[i], &d = g.layers[i];
        const LayerActivations& l = a.layers[i];
        linear_backward(a.d_hidden, d.proj_2, a.d_x, m.proj_2, l.gelu, C, F, N);
        for (int j = 0; j < N * F; j++) a.d_hidden[j] *= l.gelu_slope[j];
        linear_backward(d_y, d.fc, a.d_hidden, m.fc, l.ln_2.y, F, C, N);
        normalize_backward(a.d_x, d_y, l.ln_2, N, C, true);
        if (s.H > 1) linear_backward(d_y, d.proj, a.d_x, m.proj, l.y, C, C, N);
        // Windows that have a prefix in common are equal up to there, so one of them can take the whole gradient: the first.
        store(s.H > 1 ? d_y : a.d_x, a.rows.data(), a.all.data(), C, N, false);
        std::fill_n(a.rows.data() + s.lanes() * padded(C), C, 0.0f);
        load(d_y, a.rows.data(), a.owned.data(), C, P);
        attend_backward(s, l.qkv, l.att, d_y, a.d_qkv, a.d_att);
        if (i > 0) std::fill(a.rows.begin(), a.rows.end(), 0.0f);
        store(a.d_qkv, i ? a.rows.data() : g.qkv, i ? a.prefix.data() : a.pair.data(), 3 * C, P, true);
        if (i > 0) {
            load(a.d_qkv, a.rows.data(), a.all.data(), 3 * C, N);
            linear_backward(d_y, d.qkv, a.d_qkv, m.qkv, l.ln_1.y, 3 * C, C, N);
            normalize_backward(a.d_x, d_y, l.ln_1, N, C, true);
        }
    }
    store(a.d_x, g.x, a.pair_of_prefix.data(), C, N, true);
}

// --------------------------------------------------------------------------------------------------------------------
// What fused_step.py calls

// out = a b, where all three have C rows and C columns
template <class A> static void multiply(float* __restrict out, A a, const float* b, int C) {
    std::fill_n(out, C * C, 0.0f);
    for (int i = 0; i < C; i++)
        for (int k = 0; k < C; k++)
            for (int j = 0; j < C; j++) out[i * C + j] += a(i, k) * b[k * C + j];
}

// Multiplies the LayerNorms' weights into the matrices after them, and with one head proj into the rows of qkv that make v
static void fold(const Shape& s, const Tensors& w) {
    for (const AfterNorm& m : w.after_norms)
        for (int i = 0; i < m.rows * s.C; i += s.C)
            for (int c = 0; c < s.C; c++) m.matrix[i + c] *= m.ln[c];
    if (s.H == 1) for (const Layer& m : w.layers) {
        float* v = m.qkv + 2 * s.C * s.C;
        multiply(v, View<float, true>{m.proj, s.C}, std::vector<float>(v, v + s.C * s.C).data(), s.C);
    }
}

// The gradients of the folded matrices become those of the parameters, in the opposite order. First proj: if d is the
// gradient of proj V, where V = W diag(w), then that of proj is d V^T, and that of V is proj^T d, which takes d's place.
// Then w: if d is the gradient of W diag(w), then that of w is the sum of d * W over the rows, and that of W is d diag(w),
// which takes d's place. wte is used twice, so its two gradients are added.
static void unfold(const Shape& s, const Tensors& w, const Tensors& g) {
    const int C = s.C;
    if (s.H == 1) for (int i = 0; i < s.L; i++) {
        float *v = w.layers[i].qkv + 2 * C * C, *d_v = g.layers[i].qkv + 2 * C * C;
        std::vector<float> d(d_v, d_v + C * C), transposed(C * C);
        for (int k = 0; k < C * C; k++) transposed[k % C * C + k / C] = v[k] * w.layers[i].ln_1[k % C];
        multiply(g.layers[i].proj, View<float, true>{d.data(), C}, transposed.data(), C);
        multiply(d_v, View<float, true>{w.layers[i].proj, C}.t(), d.data(), C);
    }
    for (size_t k = 0; k < g.after_norms.size(); k++) {
        const AfterNorm &d = g.after_norms[k], &m = w.after_norms[k];
        for (int i = 0; i < d.rows * C; i += C)
            for (int c = 0; c < C; c++) d.ln[c] += d.matrix[i + c] * m.matrix[i + c], d.matrix[i + c] *= m.ln[c];
    }
    for (int i = 0; i < s.V * C; i++) g.wte[i] += g.head[i];
}

struct Step {
    Shape s;
    std::vector<float> weights, folded;
    std::vector<std::vector<float>> parts;
    std::vector<Activations> threads;

    // work(i, activations) for i = 0 ... n - 1. Each thread begins where it did in the last step, because what it then
    // wrote is in its cache, and goes on with what the others have not taken.
    template <class Work> void share(int n, Work work) {
        const int n_threads = threads.size();
        std::vector<std::atomic<bool>> taken(n);
#pragma omp parallel for num_threads(n_threads) schedule(static, 1)
        for (int k = 0; k < n_threads; k++) {
            const DenormalsAreZero in_this_thread;
            for (int j = 0; j < n; j++) {
                const int i = (k * n / n_threads + j) % n;
                if (!taken[i].exchange(true)) work(i, threads[k]);
            }
        }
    }
};

extern "C" Step* step_new(const Shape* s, int n_threads, int64_t n_parameters) try {
    const std::vector<float> weights(n_parameters + s->V * s->C), zeros(weights.size() + s->table());
    Step* step = new Step{*s, weights, zeros, std::vector<std::vector<float>>(PARTS, zeros), {}};
    for (int k = 0; k < std::min(n_threads, PARTS); k++) step->threads.emplace_back(*s);
    return step;
} catch (const std::bad_alloc&) {
    return nullptr;
}

extern "C" void step_delete(Step* step) { delete step; }

// Puts W * LANES windows into a block, from the given one on, and numbers their prefixes. Each window is compared only with
// the one before it, because in sorted order no earlier one begins with more of the same ids. If the n windows end within
// the block, the last one is repeated with weight 0.
static void take_block(const Shape& s, Activations& a, const int64_t* ids, const int64_t* start, const float* weight, int n,
                       int begin) {
    int prefixes = 0;
    const int64_t *id = nullptr, *before;
    std::fill_n(a.weight, s.P(), vec{});
    for (int i = 0; i < s.W() * LANES; i++) {
        before = id, id = ids + start[std::min(begin + i, n - 1)];
        const int same = before ? std::mismatch(id, id + s.T, before).first - id : 0;  // so many prefixes have numbers
        const float each = begin + i < n ? weight[begin + i] / s.T : 0.0f;
        for (int t = 0; t < s.T; t++) {
            const int k = (i / LANES * s.T + t) * LANES + i % LANES;  // the window's lane at its position t
            a.pair[k] = t * s.V + id[t];
            if (t >= same) a.pair_of_prefix[prefixes] = a.pair[k], a.last[t] = prefixes++;
            const int prefix = a.prefix[k] = a.last[t];
            a.owned[k] = t >= same ? prefix : s.lanes();
            a.targets[i * s.T + t] = {prefix, int(prefix / LANES * s.V + id[t + 1]), each};
            a.weight[prefix / LANES][prefix % LANES] += each;
        }
    }
    a.N = (prefixes + LANES - 1) / LANES;  // the lanes left over have no weight
}

// One part of a batch of n windows, block by block
static float run_part(const Shape& s, const Tensors& w, Activations& a, std::vector<float>& gradients, int part,
                      const int64_t* ids, const int64_t* start, const float* weight, int n) {
    const int size = s.W() * LANES, blocks = (n + size - 1) / size;
    std::fill(gradients.begin(), gradients.end(), 0.0f);
    const Tensors g(s, gradients);
    a.loss = vec{};
    for (int b = blocks * part / PARTS; b < blocks * (part + 1) / PARTS; b++) {
        take_block(s, a, ids, start, weight, n, b * size);
        forward(s, w, a);
        cross_entropy(s, a);
        backward(s, w, a, g);
    }
    return sum_lanes(a.loss);
}

// The mean losses of the windows that begin at ids[start[0]], ids[start[1]], ..., weighted and summed, and the
// gradients of that. fused_step.py has seen to it that all windows lie in the text, and all ids in the vocabulary, and
// has sorted the windows, without which the result would be the same but take longer.
extern "C" float step_gradients(Step* step, int n_tensors, const int64_t* size, float* const* param, float* const* grad,
                                const int64_t* ids, const int64_t* start, const float* weight, int n) {
    const DenormalsAreZero in_this_thread;
    const Shape& s = step->s;
    float* end = step->weights.data();
    for (int i = 0; i < n_tensors; i++) end = std::copy_n(param[i], size[i], end);
    std::copy_n(param[0], size[0], end);
    std::copy(step->weights.begin(), step->weights.end(), step->folded.begin());
    const Tensors w(s, step->weights), folded(s, step->folded), g(s, step->parts[0]);
    fold(s, folded);

    float loss[PARTS];
    step->share(s.table_blocks(), [&](int block, const Activations& a) { make_table(s, folded, a, block); });
    step->share(PARTS, [&](int i, Activations& a) {
        loss[i] = run_part(s, folded, a, step->parts[i], i, ids, start, weight, n);
    });
    step->share(PARTS, [&](int i, const Activations& a) {
        for (int block = i; block < s.table_blocks(); block += PARTS) {
            const int x = block * s.lanes() * padded(s.C), qkv = block * s.lanes() * padded(3 * s.C);
            for (int j = 1; j < PARTS; j++) {  // always in this order
                const Tensors part(s, step->parts[j]);
                sum_into(g.x + x, part.x + x, s.lanes() * padded(s.C));
                sum_into(g.qkv + qkv, part.qkv + qkv, s.lanes() * padded(3 * s.C));
            }
            table_backward(s, folded, a, Tensors(s, step->parts[i]), g, block);
        }
    });
    for (int i = 1; i < PARTS; i++) {
        loss[0] += loss[i];
        sum_into(step->parts[0].data(), step->parts[i].data(), step->parts[0].size() - s.table());
    }
    unfold(s, w, g);
    const float* begin = step->parts[0].data();
    for (int i = 0; i < n_tensors; begin += size[i++]) std::copy_n(begin, size[i], grad[i]);
    return loss[0];
}

// Clips the norm of all gradients together, never where clip is 0, and takes a step of AdamW, as torch does: clipped to
// clip / (norm + 1e-6), and with bias-corrected moments. steps holds how many steps each tensor has taken.
extern "C" void step_update(int n, const int64_t* size, float* const* param, float* const* grad, float* const* mean,
                            float* const* square, float* const* steps, const double* decay, double lr, double beta1,
                            double beta2, double eps, double clip) {
    const DenormalsAreZero in_this_thread;
    double norm = 0.0;
    for (int i = 0; i < n; i++)
        for (int64_t j = 0; j < size[i]; j++) norm += double(grad[i][j]) * grad[i][j];
    const double ratio = clip / (std::sqrt(norm) + 1e-6);
    const float factor = clip == 0.0 || ratio > 1.0 ? 1.0 : ratio;  // NaN stays NaN
    for (int i = 0; i < n; i++) {
        const double t = *steps[i] += 1.0f;
        const float keep = 1.0 - lr * decay[i], rate = lr / (1.0 - std::pow(beta1, t)), b2 = beta2, e = eps;
        const float root = std::sqrt(1.0 - std::pow(beta2, t)), c1 = 1.0 - beta1, c2 = 1.0 - beta2;
        float *p = param[i], *m = mean[i], *v = square[i];
        for (int64_t j = 0; j < size[i]; j++) {
            const float g = grad[i][j] * factor;
            m[j] += c1 * (g - m[j]);
            v[j] = b2 * v[j] + c2 * g * g;
            p[j] = keep * p[j] - rate * m[j] / (std::sqrt(v[j]) / root + e);
        }
    }
}
