// One training step of a small GPT on a CPU: the gradients of a batch, and the clipped AdamW step that follows them.
// fused_step.py compiles this file and calls the four functions at its end. The model is nanoGPT's without biases and
// dropout; parameters and gradients come in the order of model.parameters().
//
// Why it is fast:
// - Each lane of a SIMD register belongs to another window or prefix, see below and fused_ops.h.
// - A block of windows goes through the whole network, forward and backward, before the next block begins, so its
//   activations stay in the cache.
// - What a position of a window computes depends only on its prefix: the tokens up to it. Windows of a small text have
//   many prefixes in common, the more so as they come sorted. So a block computes each of its prefixes once.
// - What the first layer computes before attention depends only on a prefix's last token and its position. So it is
//   computed once for each such pair, in a table.
// - With one head, proj is multiplied into the matrix that makes v, because attention is linear in v.
//
// What lanes are: windows within attention, rows of the table where that is made, and prefixes everywhere else. On the
// way from one to the other, lanes are stored as rows of floats, and loaded from there in another order.

#include <atomic>
#include <numeric>

#include "fused_ops.h"

// The batch is summed in this many parts, and a thread that has finished one takes the next one. The parts are added in
// their order, so that the result is the same to the bit, however many threads there are and whichever is slower. More
// parts would keep more threads busy, but each has a table of gradients, which is slow if it is large.
constexpr int PARTS = 4;

// --------------------------------------------------------------------------------------------------------------------
// What is kept in memory

struct Layer { float *ln_1, *qkv, *proj, *ln_2, *fc, *proj_2; };

struct Tensors {  // parameters or gradients, one after another
    float *wte, *wpe, *ln_f, *head;  // head is the output layer, which nanoGPT ties to wte
    std::vector<Layer> layers;
    Tensors(const Shape& s, std::vector<float>& memory) {
        const int C = s.C, F = s.F;
        auto take = [next = memory.data()](int n) mutable { return (next += n) - n; };
        wte = take(s.V * C), wpe = take(s.T * C);
        for (int i = 0; i < s.L; i++)
            layers.push_back({take(C), take(3 * C * C), take(C * C), take(C), take(F * C), take(C * F)});
        ln_f = take(C), head = take(s.V * C);
    }
};

// What the first layer computes before attention, or the gradients of that: a row for each position t and token v. They
// are made by blocks, each of as many rows as a block of windows has lanes; the last one is filled up.
struct Table {
    int V, blocks;
    Rows x, qkv;
    explicit Table(const Shape& s)
        : V(s.V), blocks((s.T * s.V + s.lanes() - 1) / s.lanes()), x(blocks * s.lanes(), s.C),
          qkv(blocks * s.lanes(), 3 * s.C) {}
    int row(int t, int v) const { return t * V + v; }
};

struct LayerActivations { Norm ln_1, ln_2; vec *qkv, *att, *y, *gelu, *gelu_slope; };

// The token that follows a position of a window: after which prefix, where its logit is, and its weight in the loss
struct Target { int prefix, logit; float weight; };

struct Activations {  // of a block: features x positions
    std::vector<std::vector<vec>> memory;
    int N;                           // its prefixes fill the lanes of N positions
    Rows y_rows, qkv_rows;           // a row for each prefix, and in y_rows one more, which is 0
    // The row from which a lane is loaded, or to which it is stored. Where lanes are prefixes:
    std::vector<int> own_row;        // the prefix's own: 0, 1, 2, ...
    std::vector<int> prefix_pair;    // the table's of its last token and position
    // Where lanes are windows, at each of their positions:
    std::vector<int> window_prefix;  // that of the prefix which ends there
    std::vector<int> window_pair;    // the table's of that
    std::vector<int> first_prefix;   // that of the prefix if no window before has it, or else the row that is 0
    std::vector<Target> targets;
    vec *weight, *x, *logits, *d_x, *d_y, *d_qkv, *d_att, *d_hidden, *target_logit, loss;
    std::vector<LayerActivations> layers;
    Norm ln_f;
    explicit Activations(const Shape& s)
        : y_rows(s.lanes() + 1, s.C), qkv_rows(s.lanes(), 3 * s.C), own_row(s.lanes()), prefix_pair(own_row),
          window_prefix(own_row), window_pair(own_row), first_prefix(own_row), targets(s.lanes()) {
        const int C = s.C, F = s.F, P = s.P();
        std::iota(own_row.begin(), own_row.end(), 0);
        auto take = [&](int n) { return memory.emplace_back(n + LANES).data(); };
        auto norm = [&] { return Norm{take(P * C), take(P * C), take(P), take(C)}; };
        weight = take(P), target_logit = take(P), x = take(P * C), logits = take(P * s.V);
        d_x = take(P * C), d_y = take(P * C), d_qkv = take(P * 3 * C), d_att = take(s.T * s.T), d_hidden = take(P * F);
        for (int i = 0; i < s.L; i++)
            layers.push_back({norm(), norm(), take(P * 3 * C), take(P * s.H * s.T), take(P * C), take(P * F),
                              take(P * F)});
        ln_f = norm();
    }
};

// --------------------------------------------------------------------------------------------------------------------
// A layer, forward and backward. w and d_w are its weights and their gradients.

// Rows of q, k and v, from `begin` on, from x
static void before_attention(const Shape& s, const Layer& w, const LayerActivations& l, Activations& a, Rows& qkv,
                             int N, int begin = 0) {
    normalize(a.x, w.ln_1, l.ln_1, N, s.C);
    linear(l.qkv, w.qkv, l.ln_1.out, 3 * s.C, s.C, N);
    store(l.qkv, qkv, a.own_row, N, false, begin);
}

static void before_attention_backward(const Shape& s, const Layer& w, const Layer& d_w, const LayerActivations& l,
                                      Activations& a, Rows& d_qkv, int N, int begin = 0) {
    load(a.d_qkv, d_qkv, a.own_row, N, begin);
    linear_backward(a.d_y, d_w.qkv, a.d_qkv, w.qkv, l.ln_1.out, 3 * s.C, s.C, N);
    normalize_backward(a.d_x, d_w.ln_1, a.d_y, w.ln_1, l.ln_1, N, s.C, true);
}

// y from rows of q, k and v, of which `row` says what the windows take
static void attention(const Shape& s, const LayerActivations& l, Activations& a, Rows& qkv,
                      const std::vector<int>& row) {
    load(l.qkv, qkv, row, s.P());  // lanes become windows
    attend(s, l.qkv, l.att, l.y);
    a.y_rows.clear((a.N - 1) * LANES, LANES);  // for the lanes left over
    store(l.y, a.y_rows, a.window_prefix, s.P(), false);  // windows with one prefix store the same
    load(l.y, a.y_rows, a.own_row, a.N);  // lanes become prefixes
}

// Adds to the gradients of these rows. Windows that have a prefix in common are equal up to there, so one of them can
// take the whole gradient of its y: the first.
static void attention_backward(const Shape& s, const LayerActivations& l, Activations& a, const vec* d_y, Rows& d_qkv,
                               const std::vector<int>& row) {
    store(d_y, a.y_rows, a.own_row, a.N, false);
    a.y_rows.clear(s.lanes(), 1);
    load(a.d_y, a.y_rows, a.first_prefix, s.P());
    attend_backward(s, l.qkv, l.att, a.d_y, a.d_qkv, a.d_att);
    store(a.d_qkv, d_qkv, row, s.P(), true);
}

// x += proj y, which with one head is y already, and x += MLP(x)
static void after_attention(const Shape& s, const Layer& w, const LayerActivations& l, const Activations& a) {
    const int C = s.C, F = s.F, N = a.N;
    if (s.H > 1) linear(a.x, w.proj, l.y, C, C, N, true);
    else for (int j = 0; j < N * C; j++) a.x[j] += l.y[j];
    normalize(a.x, w.ln_2, l.ln_2, N, C);
    linear(l.gelu, w.fc, l.ln_2.out, F, C, N);
    for (int j = 0; j < N * F; j++) l.gelu[j] = gelu(l.gelu[j], l.gelu_slope[j]);
    linear(a.x, w.proj_2, l.gelu, C, F, N, true);
}

// Returns the gradient of y
static const vec* after_attention_backward(const Shape& s, const Layer& w, const Layer& d_w, const LayerActivations& l,
                                           const Activations& a) {
    const int C = s.C, F = s.F, N = a.N;
    linear_backward(a.d_hidden, d_w.proj_2, a.d_x, w.proj_2, l.gelu, C, F, N);
    for (int j = 0; j < N * F; j++) a.d_hidden[j] *= l.gelu_slope[j];
    linear_backward(a.d_y, d_w.fc, a.d_hidden, w.fc, l.ln_2.out, F, C, N);
    normalize_backward(a.d_x, d_w.ln_2, a.d_y, w.ln_2, l.ln_2, N, C, true);
    if (s.H == 1) return a.d_x;
    linear_backward(a.d_y, d_w.proj, a.d_x, w.proj, l.y, C, C, N);
    return a.d_y;
}

// --------------------------------------------------------------------------------------------------------------------
// The network, forward and backward

template <class E> static void sum_into(E* sum, const E* x, int n) {
    for (int i = 0; i < n; i++) sum[i] += x[i];
}

// A block of the table's rows. Lanes are rows.
static void make_table(const Shape& s, const Tensors& w, Activations& a, Table& table, int block) {
    const int C = s.C, begin = block * s.lanes();
    for (int row = begin; row < std::min(begin + s.lanes(), s.T * s.V); row++)
        for (int c = 0; c < C; c++) table.x.floats(row)[c] = w.wte[row % s.V * C + c] + w.wpe[row / s.V * C + c];
    load(a.x, table.x, a.own_row, s.P(), begin);
    before_attention(s, w.layers[0], a.layers[0], a, table.qkv, s.P(), begin);
}

// Turns the gradients of a block of rows into those of the embeddings and of the first layer's folded qkv matrix
static void table_backward(const Shape& s, const Tensors& w, const Tensors& d_w, Activations& a, Table& table,
                           Table& d_table, int block) {
    const int C = s.C, begin = block * s.lanes();
    load(a.x, table.x, a.own_row, s.P(), begin);
    normalize(a.x, w.layers[0].ln_1, a.layers[0].ln_1, s.P(), C);
    load(a.d_x, d_table.x, a.own_row, s.P(), begin);
    before_attention_backward(s, w.layers[0], d_w.layers[0], a.layers[0], a, d_table.qkv, s.P(), begin);
    store(a.d_x, d_table.x, a.own_row, s.P(), false, begin);
    for (int row = begin; row < std::min(begin + s.lanes(), s.T * s.V); row++) {
        sum_into(d_w.wte + row % s.V * C, d_table.x.floats(row), C);
        sum_into(d_w.wpe + row / s.V * C, d_table.x.floats(row), C);
    }
}

static void forward(const Shape& s, const Tensors& w, Table& table, Activations& a) {
    load(a.x, table.x, a.prefix_pair, a.N);
    for (int i = 0; i < s.L; i++) {
        const LayerActivations& l = a.layers[i];
        if (i > 0) before_attention(s, w.layers[i], l, a, a.qkv_rows, a.N);
        if (i > 0) attention(s, l, a, a.qkv_rows, a.window_prefix);
        else attention(s, l, a, table.qkv, a.window_pair);
        after_attention(s, w.layers[i], l, a);
    }
    normalize(a.x, w.ln_f, a.ln_f, a.N, s.C);
    linear(a.logits, w.head, a.ln_f.out, s.V, s.C, a.N);
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

static void backward(const Shape& s, const Tensors& w, const Tensors& d_w, Table& d_table, Activations& a) {
    linear_backward(a.d_y, d_w.head, a.logits, w.head, a.ln_f.out, s.V, s.C, a.N);
    normalize_backward(a.d_x, d_w.ln_f, a.d_y, w.ln_f, a.ln_f, a.N, s.C, false);
    for (int i = s.L - 1; i >= 0; i--) {
        const LayerActivations& l = a.layers[i];
        const vec* d_y = after_attention_backward(s, w.layers[i], d_w.layers[i], l, a);
        if (i > 0) a.qkv_rows.clear(0, s.lanes());
        if (i > 0) attention_backward(s, l, a, d_y, a.qkv_rows, a.window_prefix);
        else attention_backward(s, l, a, d_y, d_table.qkv, a.window_pair);
        if (i > 0) before_attention_backward(s, w.layers[i], d_w.layers[i], l, a, a.qkv_rows, a.N);
    }
    store(a.d_x, d_table.x, a.prefix_pair, a.N, true);
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

// With one head, multiplies proj into the rows of qkv for v
static void fold(const Shape& s, const Tensors& w) {
    const DenormalsAreZero in_this_thread;
    if (s.H == 1) for (const Layer& layer : w.layers) {
        float* v = layer.qkv + 2 * s.C * s.C;
        multiply(v, View<float, true>{layer.proj, s.C}, std::vector<float>(v, v + s.C * s.C).data(), s.C);
    }
}

// The gradients of the folded matrices become those of the parameters. If d is that of proj V, then that of proj is
// d V^T, and that of V is proj^T d, which takes d's place. wte is used twice, so its two gradients are added.
static void unfold(const Shape& s, const Tensors& w, const Tensors& d_w) {
    const DenormalsAreZero in_this_thread;
    const int C = s.C;
    if (s.H == 1) for (int i = 0; i < s.L; i++) {
        float *v = w.layers[i].qkv + 2 * C * C, *d_v = d_w.layers[i].qkv + 2 * C * C;
        std::vector<float> d(d_v, d_v + C * C), transposed(C * C);
        for (int k = 0; k < C * C; k++) transposed[k % C * C + k / C] = v[k];
        multiply(d_w.layers[i].proj, View<float, true>{d.data(), C}, transposed.data(), C);
        multiply(d_v, View<float, true>{w.layers[i].proj, C}.t(), d.data(), C);
    }
    for (int i = 0; i < s.V * C; i++) d_w.wte[i] += d_w.head[i];
}

struct Part {  // of the batch: its gradients, and its share of the loss
    std::vector<float> gradients;
    Table table;
    float loss;
};

static void sum_parts(std::vector<Part>& parts) {  // into the first
    const DenormalsAreZero in_this_thread;
    for (int i = 1; i < PARTS; i++) {
        parts[0].loss += parts[i].loss;
        sum_into(parts[0].gradients.data(), parts[i].gradients.data(), parts[0].gradients.size());
    }
}

struct Step {
    Shape s;
    std::vector<float> weights, folded;
    Table table;
    std::vector<Part> parts;
    std::vector<Activations> threads;

    // work(i, activations) for i = 0 ... n - 1. Each thread begins where it did in the last step, because what it then
    // wrote is in its cache, and goes on with what the others have not taken.
    template <class Work> void share(int n, Work work) {
        const int n_threads = std::min<int>(n, threads.size());  // to wake a thread takes long
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
    const std::vector<float> weights(n_parameters + s->V * s->C);
    const Part part{weights, Table(*s), 0.0f};
    Step* step = new Step{*s, weights, weights, part.table, std::vector<Part>(PARTS, part), {}};
    for (int k = 0; k < std::min(n_threads, PARTS); k++) step->threads.emplace_back(*s);
    return step;
} catch (const std::bad_alloc&) {
    return nullptr;
}

extern "C" void step_delete(Step* step) { delete step; }

struct Batch {  // n windows of a text: where they start, and their weights in the loss
    const int64_t *ids, *start;
    const float* weight;
    int n;
};

// Puts W * LANES windows into a block, from the given one on, and numbers their prefixes. Each window is compared only
// with the one before it, because in sorted order no earlier one begins with more of the same ids. If the batch ends
// within the block, the last window is repeated with weight 0.
static void take_block(const Shape& s, const Table& table, Activations& a, const Batch& batch, int begin) {
    int prefixes = 0;
    const int64_t *id = nullptr, *before;
    auto lane = [&](int window, int t) { return (window / LANES * s.T + t) * LANES + window % LANES; };
    std::fill_n(a.weight, s.P(), vec{});
    for (int i = 0; i < s.W() * LANES; i++) {
        before = id, id = batch.ids + batch.start[std::min(begin + i, batch.n - 1)];
        const int same = before ? std::mismatch(id, id + s.T, before).first - id : 0;  // so many prefixes have numbers
        const float weight = begin + i < batch.n ? batch.weight[begin + i] / s.T : 0.0f;  // of each position
        for (int t = 0; t < s.T; t++) {
            const int k = lane(i, t), prefix = t < same ? a.window_prefix[lane(i - 1, t)] : prefixes++;
            a.window_pair[k] = a.prefix_pair[prefix] = table.row(t, id[t]);
            a.window_prefix[k] = prefix;
            a.first_prefix[k] = t < same ? s.lanes() : prefix;
            a.targets[i * s.T + t] = {prefix, int(prefix / LANES * s.V + id[t + 1]), weight};
            a.weight[prefix / LANES][prefix % LANES] += weight;
        }
    }
    a.N = (prefixes + LANES - 1) / LANES;  // the lanes left over have no weight
}

// The part of this number, block by block
static void run_part(const Shape& s, const Tensors& w, Table& table, Activations& a, const Batch& batch, Part& part,
                     int number) {
    const int size = s.W() * LANES, blocks = (batch.n + size - 1) / size;
    std::fill(part.gradients.begin(), part.gradients.end(), 0.0f);
    part.table.x.clear(0, table.blocks * s.lanes());
    part.table.qkv.clear(0, table.blocks * s.lanes());
    const Tensors d_w(s, part.gradients);
    a.loss = vec{};
    for (int b = blocks * number / PARTS; b < blocks * (number + 1) / PARTS; b++) {
        take_block(s, table, a, batch, b * size);
        forward(s, w, table, a);
        cross_entropy(s, a);
        backward(s, w, d_w, part.table, a);
    }
    part.loss = sum_lanes(a.loss);
}

// The mean losses of the windows that begin at ids[start[0]], ids[start[1]], ..., weighted and summed, and the
// gradients of that. fused_step.py has seen to it that all windows lie in the text, and all ids in the vocabulary, and
// has sorted the windows, without which the result would be the same but take longer.
extern "C" float step_gradients(Step* step, int n_tensors, const int64_t* size, float* const* param, float* const* grad,
                                const int64_t* ids, const int64_t* start, const float* weight, int n) {
    const Shape& s = step->s;
    float* end = step->weights.data();
    for (int i = 0; i < n_tensors; i++) end = std::copy_n(param[i], size[i], end);
    std::copy_n(param[0], size[0], end);
    step->folded = step->weights;
    std::vector<Part>& parts = step->parts;
    const Tensors w(s, step->weights), folded(s, step->folded), d_w(s, parts[0].gradients);
    Table &table = step->table, &d_table = parts[0].table;
    fold(s, folded);

    step->share(table.blocks, [&](int block, Activations& a) { make_table(s, folded, a, table, block); });
    const Batch batch{ids, start, weight, n};
    step->share(PARTS, [&](int i, Activations& a) { run_part(s, folded, table, a, batch, parts[i], i); });
    step->share(std::min(PARTS, table.blocks), [&](int i, Activations& a) {
        const Tensors part_d_w(s, parts[i].gradients);
        for (int block = i; block < table.blocks; block += PARTS) {
            const int row = block * s.lanes();
            for (int j = 1; j < PARTS; j++) {  // always in this order
                Table& part = parts[j].table;
                sum_into(d_table.x.at(row), part.x.at(row), s.lanes() * part.x.step);
                sum_into(d_table.qkv.at(row), part.qkv.at(row), s.lanes() * part.qkv.step);
            }
            table_backward(s, folded, part_d_w, a, table, d_table, block);
        }
    });
    sum_parts(parts);
    unfold(s, w, d_w);
    const float* begin = parts[0].gradients.data();
    for (int i = 0; i < n_tensors; begin += size[i++]) std::copy_n(begin, size[i], grad[i]);
    return parts[0].loss;
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
