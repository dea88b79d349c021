// One training step of a small GPT on a CPU: the gradients of a batch, and the clipped AdamW step that follows them.
// fused_step.py compiles this file and calls the functions at its end. The model is nanoGPT's without biases and
// dropout; parameters and gradients come in the order of model.parameters().
//
// Why it is fast:
// - Each lane of a SIMD register belongs to another window or prefix, see below and fused_ops.h.
// - A group of windows, as many as the lanes hold, goes through the whole network, forward and backward, before the
//   next one begins, so its activations stay in the cache.
// - What a position of a window computes depends only on its prefix: the tokens up to it. Windows of a small text have
//   many prefixes in common, the more so as they come sorted. So a group computes each of its prefixes once.
// - What the first layer computes before attention depends only on a prefix's last token and its position. So it is
//   computed once for each such pair, in a table.
// - With one head, proj is multiplied into the matrix that makes v, because attention is linear in v. The parameters
//   are called folded then.
//
// What lanes are: windows within attention, rows of the table where that is made, and prefixes everywhere else. On the
// way from one to the other, lanes are stored as rows of floats, and loaded from there in another order.

#include <atomic>

#include "fused_ops.h"

namespace {

// The batch is summed in this many parts, and a thread that has finished one takes the next one. The parts are added in
// their order, so that the result is the same to the bit, however many threads there are and whichever is slower. More
// parts would keep more threads busy, but each has a table of gradients, which is slow if it is large.
constexpr int PARTS = 4;

// --------------------------------------------------------------------------------------------------------------------
// What is kept in memory. All of it is made once, and whatever points into its own memory cannot be copied.

struct Layer {
    float *ln_1, *qkv, *proj, *ln_2, *fc, *proj_2;
    float* v(int C) const { return qkv + 2 * C * C; }  // the rows of qkv that make v
};

struct Parameters {  // or their gradients, one after another
    std::vector<float> memory;
    float *wte, *wpe, *ln_f, *head;  // head is the output layer, which nanoGPT ties to wte; here it is a copy
    std::vector<Layer> layers;
    explicit Parameters(const Shape& s) : memory(s.parameters() + s.V * s.C) {
        const int C = s.C, F = s.F;
        float* next = memory.data();
        auto take = [&](int n) {
            next += n;
            return next - n;
        };
        wte = take(s.V * C);
        wpe = take(s.T * C);
        for (int i = 0; i < s.L; i++)
            layers.push_back({take(C), take(3 * C * C), take(C * C), take(C), take(F * C), take(C * F)});
        ln_f = take(C);
        head = take(s.V * C);
    }
    Parameters(Parameters&&) = default;
};

// What the first layer computes before attention, or the gradients of that: a row for each pair of a position and a
// token. It is computed in chunks, of as many rows as a group has slots; the last one is filled up.
struct Table {
    int V, n_rows, chunk_rows, chunks;
    Rows x, qkv;
    explicit Table(const Shape& s)
        : V(s.V), n_rows(s.T * s.V), chunk_rows(s.slots()), chunks((n_rows + chunk_rows - 1) / chunk_rows),
          x(chunks * chunk_rows, s.C), qkv(chunks * chunk_rows, 3 * s.C) {}
    int row(int position, int token) const { return position * V + token; }
    int position(int row) const { return row / V; }
    int token(int row) const { return row % V; }
    int begin(int chunk) const { return chunk * chunk_rows; }
    int end(int chunk) const { return std::min(begin(chunk + 1), n_rows); }
};

struct LayerActivations { Norm ln_1, ln_2; vec *qkv, *att, *y, *gelu, *gelu_slope; };

// The token that follows a position of a window: after which prefix, where its logit is, the logit, and its weight in
// the loss
struct Target { int prefix, logit; float value, weight; };

struct Source { Rows& qkv; const std::vector<int>& row; };  // rows of q, k and v, and which one each window takes

struct Activations {  // of a group: features x positions
    std::vector<std::vector<vec>> memory;
    int positions;                   // those whose lanes its prefixes fill
    Rows y_rows, qkv_rows;           // a row for each prefix, and in y_rows one more, which is always 0
    // The row from which a slot is loaded, or to which it is stored. Where lanes are prefixes:
    std::vector<int> prefix_pair;    // the table's of its last token and position
    // Where lanes are windows:
    std::vector<int> window_prefix;  // that of the prefix which ends there
    std::vector<int> window_pair;    // the table's of that
    std::vector<int> first_prefix;   // that of the prefix if no window before has it, or else the row that is 0
    std::vector<Target> targets;
    vec *weight, *x, *logits, *max, *log_total, *d_x, *d_y, *d_qkv, *d_att, *d_hidden;
    double loss;
    std::vector<LayerActivations> layers;
    Norm ln_f;
    explicit Activations(const Shape& s)
        : y_rows(s.slots() + 1, s.C), qkv_rows(s.slots(), 3 * s.C), prefix_pair(s.slots()), window_prefix(s.slots()),
          window_pair(s.slots()), first_prefix(s.slots()), targets(s.slots()) {
        const int C = s.C, F = s.F, P = s.P();
        auto take = [&](int n) { return memory.emplace_back(n + LANES).data(); };  // LANES more for load()
        auto norm = [&] { return Norm{take(P * C), take(P * C), take(P), take(C)}; };
        weight = take(P);
        x = take(P * C);
        logits = take(P * s.V);
        max = take(P);
        log_total = take(P);
        d_x = take(P * C);
        d_y = take(P * C);
        d_qkv = take(P * 3 * C);
        d_att = take(s.T * s.T);
        d_hidden = take(P * F);
        for (int i = 0; i < s.L; i++)
            layers.push_back({norm(), norm(), take(P * 3 * C), take(P * s.H * s.T), take(P * C), take(P * F),
                              take(P * F)});
        ln_f = norm();
    }
    Activations(Activations&&) = default;
    Source source(int layer, Table& table) {
        if (layer == 0) return {table.qkv, window_pair};
        return {qkv_rows, window_prefix};
    }
};

struct Part {  // of the batch: its gradients, and its share of the loss
    Parameters d_folded;
    Table d_table;
    double loss = 0.0;
    explicit Part(const Shape& s) : d_folded(s), d_table(s) {}
};

struct Step {
    const Shape s;
    Parameters params, folded;
    std::vector<float> square;  // room for a matrix of C x C
    Table table;
    std::vector<Part> parts;
    std::vector<Activations> activations;  // one for each thread
    std::vector<std::atomic<bool>> taken;
    Step(const Shape& s, int n_threads)
        : s(s), params(s), folded(s), square(s.C * s.C), table(s), taken(std::max(PARTS, table.chunks)) {
        for (int i = 0; i < PARTS; i++) parts.emplace_back(s);
        for (int i = 0; i < std::min(n_threads, PARTS); i++) activations.emplace_back(s);
    }

    // work(i, activations) for i = 0 ... n - 1. Each thread begins where it did in the last step, because what it then
    // wrote is in its cache, and goes on with what the others have not taken. There are no more threads than work,
    // because to wake one takes long.
    template <class Work> void in_parallel(int n, Work work) {
        const int n_threads = std::min<int>(n, activations.size());
        for (int i = 0; i < n; i++) taken[i] = false;
#pragma omp parallel for num_threads(n_threads) schedule(static, 1)
        for (int k = 0; k < n_threads; k++) {
            const DenormalsAreZero in_this_thread;
            for (int j = 0; j < n; j++) {
                const int i = (k * n / n_threads + j) % n;
                if (!taken[i].exchange(true)) work(i, activations[k]);
            }
        }
    }
};

// --------------------------------------------------------------------------------------------------------------------
// A layer, forward and backward. w and d_w are its weights and their gradients.

// Rows of q, k and v, from the given one on, from x
void before_attention(const Shape& s, const Layer& w, const LayerActivations& layer, Activations& a, Rows& qkv,
                      int first, int N) {
    normalize(a.x, w.ln_1, layer.ln_1, N, s.C);
    linear(layer.qkv, w.qkv, layer.ln_1.out, 3 * s.C, s.C, N);
    store(layer.qkv, qkv, From{first}, N, false);
}

void before_attention_backward(const Shape& s, const Layer& w, const Layer& d_w, const LayerActivations& layer,
                               Activations& a, Rows& d_qkv, int first, int N) {
    load(a.d_qkv, d_qkv, From{first}, N);
    linear_backward(a.d_y, d_w.qkv, a.d_qkv, w.qkv, layer.ln_1.out, 3 * s.C, s.C, N);
    normalize_backward(a.d_x, d_w.ln_1, a.d_y, w.ln_1, layer.ln_1, N, s.C, true);
}

// y from rows of q, k and v
void attention(const Shape& s, const LayerActivations& layer, Activations& a, Source from) {
    load(layer.qkv, from.qkv, from.row, s.P());  // lanes become windows
    attend(s, layer.qkv, layer.att, layer.y);
    a.y_rows.clear((a.positions - 1) * LANES, LANES);  // for the lanes left over
    store(layer.y, a.y_rows, a.window_prefix, s.P(), false);  // windows with one prefix store the same
    load(layer.y, a.y_rows, From{0}, a.positions);  // lanes become prefixes
}

// Adds to the gradients of these rows. Windows that have a prefix in common are equal up to there, so one of them can
// take the whole gradient of its y: the first.
void attention_backward(const Shape& s, const LayerActivations& layer, Activations& a, const vec* d_y, Source to) {
    store(d_y, a.y_rows, From{0}, a.positions, false);
    load(a.d_y, a.y_rows, a.first_prefix, s.P());
    attend_backward(s, layer.qkv, layer.att, a.d_y, a.d_qkv, a.d_att);
    store(a.d_qkv, to.qkv, to.row, s.P(), true);
}

// x += proj y, and x += MLP(x)
void after_attention(const Shape& s, const Layer& w, const LayerActivations& layer, const Activations& a) {
    const int C = s.C, F = s.F, N = a.positions;
    if (s.proj_in_v())
        for (int i = 0; i < N * C; i++) a.x[i] += layer.y[i];
    else
        linear(a.x, w.proj, layer.y, C, C, N, true);
    normalize(a.x, w.ln_2, layer.ln_2, N, C);
    linear(layer.gelu, w.fc, layer.ln_2.out, F, C, N);
    for (int i = 0; i < N * F; i++) layer.gelu[i] = gelu(layer.gelu[i], layer.gelu_slope[i]);
    linear(a.x, w.proj_2, layer.gelu, C, F, N, true);
}

// Returns the gradient of y
const vec* after_attention_backward(const Shape& s, const Layer& w, const Layer& d_w, const LayerActivations& layer,
                                    const Activations& a) {
    const int C = s.C, F = s.F, N = a.positions;
    linear_backward(a.d_hidden, d_w.proj_2, a.d_x, w.proj_2, layer.gelu, C, F, N);
    for (int i = 0; i < N * F; i++) a.d_hidden[i] *= layer.gelu_slope[i];
    linear_backward(a.d_y, d_w.fc, a.d_hidden, w.fc, layer.ln_2.out, F, C, N);
    normalize_backward(a.d_x, d_w.ln_2, a.d_y, w.ln_2, layer.ln_2, N, C, true);
    if (s.proj_in_v()) return a.d_x;
    linear_backward(a.d_y, d_w.proj, a.d_x, w.proj, layer.y, C, C, N);
    return a.d_y;
}

// --------------------------------------------------------------------------------------------------------------------
// The table, forward and backward

template <class E> void sum_into(E* sum, const E* x, int n) {
    for (int i = 0; i < n; i++) sum[i] += x[i];
}

// A chunk of the table. Lanes are rows.
void make_table(const Shape& s, const Parameters& folded, Activations& a, Table& table, int chunk) {
    const int C = s.C, begin = table.begin(chunk);
    for (int row = begin; row < table.end(chunk); row++) {
        const float *wte = folded.wte + table.token(row) * C, *wpe = folded.wpe + table.position(row) * C;
        for (int c = 0; c < C; c++) table.x.floats(row)[c] = wte[c] + wpe[c];
    }
    load(a.x, table.x, From{begin}, s.P());
    before_attention(s, folded.layers[0], a.layers[0], a, table.qkv, begin, s.P());
}

// Turns the gradients of a chunk into those of the embeddings and of the first layer before attention
void table_backward(const Shape& s, const Parameters& folded, const Parameters& d_folded, Activations& a, Table& table,
                    Table& d_table, int chunk) {
    const int C = s.C, begin = table.begin(chunk);
    load(a.x, table.x, From{begin}, s.P());
    normalize(a.x, folded.layers[0].ln_1, a.layers[0].ln_1, s.P(), C);
    load(a.d_x, d_table.x, From{begin}, s.P());
    before_attention_backward(s, folded.layers[0], d_folded.layers[0], a.layers[0], a, d_table.qkv, begin, s.P());
    store(a.d_x, d_table.x, From{begin}, s.P(), false);
    for (int row = begin; row < table.end(chunk); row++) {
        sum_into(d_folded.wte + table.token(row) * C, d_table.x.floats(row), C);
        sum_into(d_folded.wpe + table.position(row) * C, d_table.x.floats(row), C);
    }
}

// --------------------------------------------------------------------------------------------------------------------
// A group of windows, through the network and back

struct Batch {  // n windows of a text: where they start, and their weights in the loss
    const int64_t *ids, *start;
    const float* weight;
    int n;
};

// Takes the windows from the given one on, and numbers their prefixes. Each window is compared only with the one before
// it, because in sorted order no earlier one begins with more of the same ids. If the batch ends within the group, the
// last window is repeated with weight 0.
void take_group(const Shape& s, const Table& table, Activations& a, const Batch& batch, int begin) {
    auto slot = [&](int window, int position) { return (window / LANES * s.T + position) * LANES + window % LANES; };
    const int64_t* before = nullptr;
    int prefixes = 0;
    std::fill_n(a.weight, s.P(), vec{});
    for (int window = 0; window < s.windows(); window++) {
        const int i = std::min(begin + window, batch.n - 1);
        const int64_t* id = batch.ids + batch.start[i];
        const int same = before ? std::mismatch(id, id + s.T, before).first - id : 0;  // so many prefixes have numbers
        const float weight = begin + window < batch.n ? batch.weight[i] / s.T : 0.0f;  // of each position
        for (int t = 0; t < s.T; t++) {
            const int here = slot(window, t), prefix = t < same ? a.window_prefix[slot(window - 1, t)] : prefixes++;
            a.prefix_pair[prefix] = a.window_pair[here] = table.row(t, id[t]);
            a.window_prefix[here] = prefix;
            a.first_prefix[here] = t < same ? s.slots() : prefix;
            a.targets[window * s.T + t] = {prefix, int(prefix / LANES * s.V + id[t + 1]), 0.0f, weight};
            a.weight[prefix / LANES][prefix % LANES] += weight;
        }
        before = id;
    }
    // The lanes left over have no weight, and keep a row of the table from before, which is as good as any.
    a.positions = (prefixes + LANES - 1) / LANES;
}

void forward(const Shape& s, const Parameters& folded, Table& table, Activations& a) {
    load(a.x, table.x, a.prefix_pair, a.positions);
    for (int i = 0; i < s.L; i++) {
        const LayerActivations& layer = a.layers[i];
        if (i > 0) before_attention(s, folded.layers[i], layer, a, a.qkv_rows, 0, a.positions);  // else: in the table
        attention(s, layer, a, a.source(i, table));
        after_attention(s, folded.layers[i], layer, a);
    }
    normalize(a.x, folded.ln_f, a.ln_f, a.positions, s.C);
    linear(a.logits, folded.head, a.ln_f.out, s.V, s.C, a.positions);
}

// Adds the windows' mean losses, weighted: the log of the sum of exp(logit), minus the target's logit. The logits
// become their gradients: the prefix's weight * softmax, minus the weights of the windows that go on with that token.
void cross_entropy(const Shape& s, Activations& a) {
    for (Target& t : a.targets) t.value = a.logits[t.logit][t.prefix % LANES];
    for (int p = 0; p < a.positions; p++) {
        vec* logits = a.logits + p * s.V;
        const auto [max, total] = exp_all(logits, s.V, 1.0f);
        const vec factor = a.weight[p] / total;
        for (int v = 0; v < s.V; v++) logits[v] *= factor;
        a.max[p] = max;
        for (int lane = 0; lane < LANES; lane++) a.log_total[p][lane] = std::log(total[lane]);
    }
    double loss = 0.0;
    for (const Target& t : a.targets) {
        const int p = t.prefix / LANES, lane = t.prefix % LANES;
        loss += t.weight * (a.log_total[p][lane] + (a.max[p][lane] - t.value));  // both are at least 0
        a.logits[t.logit][lane] -= t.weight;
    }
    a.loss += loss;
}

void backward(const Shape& s, const Parameters& folded, const Parameters& d_folded, Table& d_table, Activations& a) {
    linear_backward(a.d_y, d_folded.head, a.logits, folded.head, a.ln_f.out, s.V, s.C, a.positions);
    normalize_backward(a.d_x, d_folded.ln_f, a.d_y, folded.ln_f, a.ln_f, a.positions, s.C, false);
    for (int i = s.L - 1; i >= 0; i--) {
        const LayerActivations& layer = a.layers[i];
        const Layer &w = folded.layers[i], &d_w = d_folded.layers[i];
        const vec* d_y = after_attention_backward(s, w, d_w, layer, a);
        if (i > 0) a.qkv_rows.clear(0, s.slots());
        attention_backward(s, layer, a, d_y, a.source(i, d_table));
        if (i > 0) before_attention_backward(s, w, d_w, layer, a, a.qkv_rows, 0, a.positions);
    }
    store(a.d_x, d_table.x, a.prefix_pair, a.positions, true);
}

// --------------------------------------------------------------------------------------------------------------------
// The parts of a batch

// The i-th part, group by group
void run_part(int i, const Shape& s, const Parameters& folded, Table& table, Activations& a, const Batch& batch,
              Part& part) {
    const int groups = (batch.n + s.windows() - 1) / s.windows();
    std::fill(part.d_folded.memory.begin(), part.d_folded.memory.end(), 0.0f);
    part.d_table.x.clear(0, table.chunks * table.chunk_rows);
    part.d_table.qkv.clear(0, table.chunks * table.chunk_rows);
    a.loss = 0.0;
    for (int group = groups * i / PARTS; group < groups * (i + 1) / PARTS; group++) {
        take_group(s, table, a, batch, group * s.windows());
        forward(s, folded, table, a);
        cross_entropy(s, a);
        backward(s, folded, part.d_folded, part.d_table, a);
    }
    part.loss = a.loss;
}

// Adds every part's gradients of the table to those of the first, always in the same order, and adds what follows from
// that to the i-th part's gradients of parameters. Chunks are dealt out to parts.
void sum_tables_backward(int i, const Shape& s, const Parameters& folded, Table& table, Activations& a,
                         std::vector<Part>& parts) {
    Table& d_table = parts[0].d_table;
    for (int chunk = i; chunk < table.chunks; chunk += PARTS) {
        const int begin = table.begin(chunk);
        for (int j = 1; j < PARTS; j++) {
            Table& other = parts[j].d_table;
            sum_into(d_table.x.at(begin), other.x.at(begin), table.chunk_rows * other.x.registers);
            sum_into(d_table.qkv.at(begin), other.qkv.at(begin), table.chunk_rows * other.qkv.registers);
        }
        table_backward(s, folded, parts[i].d_folded, a, table, d_table, chunk);
    }
}

void sum_parts(std::vector<Part>& parts) {  // into the first
    const DenormalsAreZero in_this_thread;
    for (int i = 1; i < PARTS; i++) {
        std::vector<float> &sum = parts[0].d_folded.memory, &other = parts[i].d_folded.memory;
        sum_into(sum.data(), other.data(), sum.size());
        parts[0].loss += parts[i].loss;
    }
}

// --------------------------------------------------------------------------------------------------------------------
// Folding

// out = a b, where all three have C rows and C columns
template <class A> void multiply(float* __restrict out, A a, const float* b, int C) {
    std::fill_n(out, C * C, 0.0f);
    for (int i = 0; i < C; i++)
        for (int k = 0; k < C; k++)
            for (int j = 0; j < C; j++) out[i * C + j] += a(i, k) * b[k * C + j];
}

// Copies the parameters, and with one head multiplies proj into v
void fold(const Shape& s, const Parameters& params, Parameters& folded) {
    const DenormalsAreZero in_this_thread;
    std::copy(params.memory.begin(), params.memory.end(), folded.memory.begin());
    for (int i = 0; s.proj_in_v() && i < s.L; i++)
        multiply(folded.layers[i].v(s.C), Weights{params.layers[i].proj, s.C}, params.layers[i].v(s.C), s.C);
}

// The gradients of folded parameters become those of the parameters. If d is that of proj V, then that of proj is
// d V^T, and that of V is proj^T d. wte is used twice, so its two gradients are added.
void unfold(const Shape& s, const Parameters& params, const Parameters& d_params, float* square) {
    const DenormalsAreZero in_this_thread;
    const int C = s.C;
    for (int i = 0; s.proj_in_v() && i < s.L; i++) {
        const Layer &w = params.layers[i], &d_w = d_params.layers[i];
        for (int k = 0; k < C * C; k++) square[k % C * C + k / C] = w.v(C)[k];
        multiply(d_w.proj, Weights{d_w.v(C), C}, square, C);
        std::copy_n(d_w.v(C), C * C, square);
        multiply(d_w.v(C), Weights{w.proj, C}.transposed(), square, C);
    }
    sum_into(d_params.wte, d_params.head, s.V * C);
}

}  // namespace

// --------------------------------------------------------------------------------------------------------------------
// What fused_step.py calls. Nothing of this throws.

// The number of parameters that a model of this shape has
extern "C" int step_parameters(const Shape* s) noexcept { return s->parameters(); }

// Whether more than one thread can be used
extern "C" bool step_has_threads() noexcept {
#ifdef _OPENMP
    return true;
#else
    return false;
#endif
}

// Returns nullptr if there is not enough memory
extern "C" Step* step_new(const Shape* s, int n_threads) noexcept try {
    return new Step(*s, n_threads);
} catch (...) {
    return nullptr;
}

extern "C" void step_delete(Step* step) noexcept { delete step; }

// The mean losses of the windows that begin at ids[start[0]], ids[start[1]], ..., weighted and summed, and the
// gradients of that. fused_step.py has seen to it that all windows lie in the text, and all ids in the vocabulary, and
// has sorted the windows, without which the result would be the same but take longer.
extern "C" float step_gradients(Step* step, int n_tensors, const int64_t* size, float* const* param, float* const* grad,
                                const int64_t* ids, const int64_t* start, const float* weight, int n) noexcept {
    const Shape& s = step->s;
    Parameters &params = step->params, &folded = step->folded;
    std::vector<Part>& parts = step->parts;
    Table& table = step->table;
    const Batch batch{ids, start, weight, n};

    float* to = params.memory.data();
    for (int i = 0; i < n_tensors; i++) to = std::copy_n(param[i], size[i], to);
    std::copy_n(params.wte, s.V * s.C, params.head);

    fold(s, params, folded);
    step->in_parallel(table.chunks, [&](int i, Activations& a) { make_table(s, folded, a, table, i); });
    step->in_parallel(PARTS, [&](int i, Activations& a) { run_part(i, s, folded, table, a, batch, parts[i]); });
    step->in_parallel(std::min(PARTS, table.chunks),
                      [&](int i, Activations& a) { sum_tables_backward(i, s, folded, table, a, parts); });
    sum_parts(parts);
    unfold(s, params, parts[0].d_folded, step->square.data());

    const float* from = parts[0].d_folded.memory.data();
    for (int i = 0; i < n_tensors; i++) {
        std::copy_n(from, size[i], grad[i]);
        from += size[i];
    }
    return parts[0].loss;
}

// Clips the norm of all gradients together, never where clip is 0, and takes a step of AdamW, as torch does: clipped to
// clip / (norm + 1e-6), and with bias-corrected moments. steps holds how many steps each tensor has taken.
extern "C" void step_update(int n_tensors, const int64_t* size, float* const* param, float* const* grad,
                            float* const* mean, float* const* square, float* const* steps, const double* decay,
                            double lr, double beta1, double beta2, double eps, double clip) noexcept {
    const DenormalsAreZero in_this_thread;
    double norm = 0.0;
    for (int i = 0; i < n_tensors; i++)
        for (int64_t j = 0; j < size[i]; j++) norm += double(grad[i][j]) * grad[i][j];
    const double ratio = clip / (std::sqrt(norm) + 1e-6);
    const float factor = clip == 0.0 || ratio > 1.0 ? 1.0 : ratio;  // NaN stays NaN
    for (int i = 0; i < n_tensors; i++) {
        *steps[i] += 1.0f;
        const double correction1 = 1.0 - std::pow(beta1, *steps[i]), correction2 = 1.0 - std::pow(beta2, *steps[i]);
        const float keep = 1.0 - lr * decay[i], rate = lr / correction1, root = std::sqrt(correction2);
        const float b2 = beta2, e = eps, c1 = 1.0 - beta1, c2 = 1.0 - beta2;
        float *p = param[i], *m = mean[i], *v = square[i];
        for (int64_t j = 0; j < size[i]; j++) {
            const float g = grad[i][j] * factor;
            m[j] += c1 * (g - m[j]);
            v[j] = b2 * v[j] + c2 * g * g;
            p[j] = keep * p[j] - rate * m[j] / (std::sqrt(v[j]) / root + e);
        }
    }
}
