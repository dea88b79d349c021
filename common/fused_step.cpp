// One training step of a small GPT on a CPU: the gradients of a batch, and the clipped AdamW step that follows them.
// fused_step.py compiles this file and calls the four functions at its end. The model is nanoGPT's without biases and
// dropout; parameters and gradients come in the order of model.parameters().
//
// Why it is fast:
// - The windows of a batch are the lanes of SIMD registers, see fused_ops.h.
// - A block of windows goes through the whole network, forward and backward, before the next block begins, so its
//   activations stay in the cache.
// - What the first layer computes before attention depends only on a token and its position. So it is computed once for
//   each such pair and not for each window: the rows of a table, which hold x and its q, k and v.
// - LayerNorms have no weights here, because these are multiplied into the matrix that follows: W (w * y) = (W diag(w)) y

#include <atomic>
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
    float *wte, *wpe, *ln_f, *head, *table;  // head is the output layer, which nanoGPT ties to wte
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
        ln_f = take(C), head = take(s.V * C), table = take(0);
        after_norms.push_back({head, ln_f, s.V});
    }
};

struct LayerActivations { Norm ln_1, ln_2; vec *qkv, *att, *y, *gelu, *gelu_slope; };

struct Activations {  // of a block: features x positions
    std::vector<std::vector<vec>> memory;
    std::vector<const int64_t*> window;  // where the ids of each window begin
    vec *weight, *x, *logits, *d_x, *d_qkv, *d_att, *d_hidden, loss;
    std::vector<LayerActivations> layers;
    Norm ln_f;
    explicit Activations(const Shape& s) : window(s.W() * LANES) {
        const int C = s.C, F = s.F, P = s.P();
        auto take = [&](int n) { return memory.emplace_back(n).data(); };
        auto norm = [&] { return Norm{take(P * C), take(P)}; };
        weight = take(s.W()), x = take(P * C), logits = take(P * s.V);
        d_x = take(P * C), d_qkv = take(P * 3 * C), d_att = take(s.T * s.T), d_hidden = take(P * F);
        for (int i = 0; i < s.L; i++)
            layers.push_back({norm(), norm(), take(P * 3 * C), take(P * s.H * s.T), take(P * C), take(P * F),
                              take(P * F)});
        ln_f = norm();
    }
};

// --------------------------------------------------------------------------------------------------------------------
// The network, forward and backward

// Where the rows begin that stand in the lanes of one position: those of the windows' tokens, or consecutive ones while
// the table itself is made
template <class Float> struct Rows {  // of floats, or const floats to read
    Float* row[LANES];
    Rows(const Shape& s, Float* table, const Activations& a, int p) {
        const int t = p % s.T;
        for (int l = 0; l < LANES; l++) row[l] = table + (t * s.V + a.window[p / s.T * LANES + l][t]) * s.row();
    }
    Rows(const Shape& s, Float* table, int p) {
        for (int l = 0; l < LANES; l++) row[l] = table + (p * LANES + l) * s.row();
    }
};

// The first LayerNorm of a block of the table: row t * V + v is that of token v at position t. The last block is filled up
// with the last row; these copies get no gradient.
static void normalize_table(const Shape& s, const Tensors& w, const Activations& a, int block) {
    for (int i = 0; i < s.P() * LANES; i++) {
        const int row = std::min(block * s.P() * LANES + i, s.T * s.V - 1);
        for (int c = 0; c < s.C; c++)
            a.x[i / LANES * s.C + c][i % LANES] = w.wte[row % s.V * s.C + c] + w.wpe[row / s.V * s.C + c];
    }
    normalize(a.x, a.layers[0].ln_1, s.P(), s.C);
}

static void make_table(const Shape& s, const Tensors& w, const Activations& a, int block) {
    const int C = s.C, P = s.P();
    normalize_table(s, w, a, block);
    linear(a.layers[0].qkv, w.layers[0].qkv, a.layers[0].ln_1.y, 3 * C, C, P);
    std::fill_n(w.table + block * P * LANES * s.row(), P * LANES * s.row(), 0.0f);
    for (int p = 0; p < P; p++) add(Rows(s, w.table, block * P + p).row, a.x + p * C, a.layers[0].qkv + p * 3 * C, C);
}

// Turns the gradients of the table's rows into those of the embeddings and of the first layer's folded qkv matrix
static void table_backward(const Shape& s, const Tensors& w, const Activations& a, const Tensors& g, const float* d_table,
                           int block) {
    const int C = s.C, P = s.P();
    normalize_table(s, w, a, block);
    for (int p = 0; p < P; p++) load(Rows(s, d_table, block * P + p).row, a.d_x + p * C, a.d_qkv + p * 3 * C, C);
    linear_backward(a.x, g.layers[0].qkv, a.d_qkv, w.layers[0].qkv, a.layers[0].ln_1.y, 3 * C, C, P);
    normalize_backward(a.d_x, a.x, a.layers[0].ln_1, P, C, true);
    for (int i = 0; i < P * LANES; i++) {
        const int row = std::min(block * P * LANES + i, s.T * s.V - 1);
        for (int c = 0; c < C; c++) {
            const float d = a.d_x[i / LANES * C + c][i % LANES];
            g.wte[row % s.V * C + c] += d, g.wpe[row / s.V * C + c] += d;
        }
    }
}

static void forward(const Shape& s, const Tensors& w, const Activations& a) {
    const int C = s.C, F = s.F, P = s.P();
    for (int p = 0; p < P; p++) load(Rows(s, w.table, a, p).row, a.x + p * C, a.layers[0].qkv + p * 3 * C, C);
    for (int i = 0; i < s.L; i++) {
        const Layer& m = w.layers[i];
        const LayerActivations& l = a.layers[i];
        if (i > 0) {
            normalize(a.x, l.ln_1, P, C);
            linear(l.qkv, m.qkv, l.ln_1.y, 3 * C, C, P);
        }
        attend(s, l.qkv, l.att, l.y);
        linear(a.x, m.proj, l.y, C, C, P, true);
        normalize(a.x, l.ln_2, P, C);
        linear(l.gelu, m.fc, l.ln_2.y, F, C, P);
        for (int j = 0; j < P * F; j++) l.gelu[j] = gelu(l.gelu[j], l.gelu_slope[j]);
        linear(a.x, m.proj_2, l.gelu, C, F, P, true);
    }
    normalize(a.x, a.ln_f, P, C);
    linear(a.logits, w.head, a.ln_f.y, s.V, C, P);
}

// Adds the windows' mean losses, weighted. The logits become their gradients: (softmax - one-hot target) * weight / T.
static void cross_entropy(const Shape& s, Activations& a) {
    vec totals = vec{} + 1.0f;
    for (int p = 0; p < s.P(); p++) {
        const int t = p % s.T;
        const int64_t* const* window = &a.window[p / s.T * LANES];
        vec *z = a.logits + p * s.V, weight = a.weight[p / s.T] / (float)s.T, target, max;
        for (int l = 0; l < LANES; l++) target[l] = z[window[l][t + 1]][l];
        const vec total = exp_all(z, s.V, 1.0f, max), factor = weight / total;
        a.loss += weight * (max - target), totals *= total;
        if (t % 4 == 3 || t == s.T - 1) {  // one logarithm for four positions, because V^4 is not too large for a float
            for (int l = 0; l < LANES; l++) a.loss[l] += weight[l] * std::log(totals[l]);
            totals = vec{} + 1.0f;
        }
        for (int v = 0; v < s.V; v++) z[v] *= factor;
        for (int l = 0; l < LANES; l++) z[window[l][t + 1]][l] -= weight[l];
    }
}

static void backward(const Shape& s, const Tensors& w, const Activations& a, const Tensors& g) {
    const int C = s.C, F = s.F, P = s.P();
    vec* d_y = a.x;  // in the place of x, which is not needed any more
    linear_backward(d_y, g.head, a.logits, w.head, a.ln_f.y, s.V, C, P);
    normalize_backward(a.d_x, d_y, a.ln_f, P, C, false);
    for (int i = s.L - 1; i >= 0; i--) {
        const Layer &m = w.layers[i], &d = g.layers[i];
        const LayerActivations& l = a.layers[i];
        linear_backward(a.d_hidden, d.proj_2, a.d_x, m.proj_2, l.gelu, C, F, P);
        for (int j = 0; j < P * F; j++) a.d_hidden[j] *= l.gelu_slope[j];
        linear_backward(d_y, d.fc, a.d_hidden, m.fc, l.ln_2.y, F, C, P);
        normalize_backward(a.d_x, d_y, l.ln_2, P, C, true);
        linear_backward(d_y, d.proj, a.d_x, m.proj, l.y, C, C, P);
        attend_backward(s, l.qkv, l.att, d_y, a.d_qkv, a.d_att);
        if (i > 0) {
            linear_backward(d_y, d.qkv, a.d_qkv, m.qkv, l.ln_1.y, 3 * C, C, P);
            normalize_backward(a.d_x, d_y, l.ln_1, P, C, true);
        }
    }
    for (int p = 0; p < P; p++) add(Rows(s, g.table, a, p).row, a.d_x + p * C, a.d_qkv + p * 3 * C, C);
}

// --------------------------------------------------------------------------------------------------------------------
// What fused_step.py calls

// d is the gradient of W diag(w). That of w is the sum of d * W over the rows, and that of W is d diag(w), which takes d's
// place. wte is used twice, so its two gradients are added.
static void unfold(const Shape& s, const Tensors& w, const Tensors& g) {
    for (size_t k = 0; k < g.after_norms.size(); k++) {
        const AfterNorm &d = g.after_norms[k], &m = w.after_norms[k];
        for (int i = 0; i < d.rows * s.C; i += s.C)
            for (int c = 0; c < s.C; c++) d.ln[c] += d.matrix[i + c] * m.matrix[i + c], d.matrix[i + c] *= m.ln[c];
    }
    for (int i = 0; i < s.V * s.C; i++) g.wte[i] += g.head[i];
}

static void sum_into(float* sum, const float* x, int n) {
    for (int i = 0; i < n; i++) sum[i] += x[i];
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
        for (int k = 0; k < n_threads; k++)
            for (int j = 0; j < n; j++) {
                const int i = (k * n / n_threads + j) % n;
                if (!taken[i].exchange(true)) work(i, threads[k]);
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

// One part of a batch of n windows, block by block; the last block is filled up with windows of no weight
static float run_part(const Shape& s, const Tensors& w, Activations& a, std::vector<float>& gradients, int part,
                      const int64_t* ids, const int64_t* start, const float* weight, int n) {
    const int size = s.W() * LANES, blocks = (n + size - 1) / size;
    std::fill(gradients.begin(), gradients.end(), 0.0f);
    const Tensors g(s, gradients);
    a.loss = vec{};
    for (int b = blocks * part / PARTS; b < blocks * (part + 1) / PARTS; b++) {
        for (int i = 0; i < size; i++) {
            const int row = b * size + i;
            a.window[i] = ids + start[row < n ? row : 0];
            a.weight[i / LANES][i % LANES] = row < n ? weight[row] : 0.0f;
        }
        forward(s, w, a);
        cross_entropy(s, a);
        backward(s, w, a, g);
    }
    return sum_lanes(a.loss);
}

// The mean losses of the windows that begin at ids[start[0]], ids[start[1]], ..., weighted and summed, and the
// gradients of that. fused_step.py has seen to it that all windows lie in the text, and all ids in the vocabulary.
extern "C" float step_gradients(Step* step, int n_tensors, const int64_t* size, float* const* param, float* const* grad,
                                const int64_t* ids, const int64_t* start, const float* weight, int n) {
    const Shape& s = step->s;
    float* end = step->weights.data();
    for (int i = 0; i < n_tensors; i++) end = std::copy_n(param[i], size[i], end);
    std::copy_n(param[0], size[0], end);
    std::copy(step->weights.begin(), step->weights.end(), step->folded.begin());
    const Tensors w(s, step->weights), folded(s, step->folded), g(s, step->parts[0]);
    for (const AfterNorm& m : folded.after_norms)
        for (int i = 0; i < m.rows * s.C; i += s.C)
            for (int c = 0; c < s.C; c++) m.matrix[i + c] *= m.ln[c];

    float loss[PARTS];
    step->share(s.table_blocks(), [&](int block, const Activations& a) { make_table(s, folded, a, block); });
    step->share(PARTS, [&](int i, Activations& a) {
        loss[i] = run_part(s, folded, a, step->parts[i], i, ids, start, weight, n);
    });
    step->share(PARTS, [&](int i, const Activations& a) {
        const int size = s.P() * LANES * s.row();
        for (int block = i; block < s.table_blocks(); block += PARTS) {
            for (int j = 1; j < PARTS; j++)  // always in this order
                sum_into(g.table + block * size, Tensors(s, step->parts[j]).table + block * size, size);
            table_backward(s, folded, a, Tensors(s, step->parts[i]), g.table, block);
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
