// One training step of a small GPT on a CPU: the gradients of a batch, and the clipped AdamW step that follows them.
// fused_step.py compiles this file and calls the functions at its end. The model is nanoGPT's without biases and
// dropout; parameters and gradients come in the order of model.parameters().
//
// Why it is fast:
// - Each lane of a SIMD register belongs to another position of the text, see fused_ops.h.
// - A group of windows, as many as the lanes hold, goes through the whole network, forward and backward, before the
//   next one begins, so its activations stay in the cache.
// - What a position of a window computes depends only on its prefix: the tokens up to it. Windows of a small text have
//   many prefixes in common, the more so as they come sorted. So a group computes each of its prefixes once.
// - What the first layer computes before attention depends only on a prefix's last token and its position. So it is
//   computed once for each such pair, in a table.
// - With one head, proj is multiplied into the matrix that makes v, because attention is linear in v. The parameters
//   are called folded then.
//
// A slot, which is one lane of one column (see fused_ops.h), holds a position of a window within attention, a row of
// the table where that is made, and a prefix everywhere else. On the way from one to the other, slots are stored as
// rows of floats, and loaded from there in another order.

#include <atomic>

#include "fused_ops.h"

namespace {

// The batch is summed in this many parts, and a thread that has finished one takes the next one. The parts are added in
// their order, so that the result is the same to the bit, however many threads there are and whichever is slower. More
// parts would keep more threads busy, but each has a table of gradients, which is slow if it is large.
constexpr int PARTS = 4;

// --------------------------------------------------------------------------------------------------------------------
// What is kept in memory. All of it is made once.

struct Shape {  // fused_step.py passes these numbers as an array
    int L, H, C, F, T, V;  // layers, heads, width, hidden width of the MLP, positions in a window, vocabulary
    int W() const { return std::max(1, 18 / T); }  // windows end to end in a lane; more columns were not quicker
    int columns() const { return W() * T; }        // of a group
    int windows() const { return W() * LANES; }    // of a group
    int slots() const { return columns() * LANES; }
    bool proj_in_v() const { return H == 1; }
    int parameters() const { return V * C + T * C + L * (C + 3 * C * C + C * C + C + F * C + C * F) + C; }
};

struct Layer {  // nanoGPT calls qkv c_attn, and both proj and fc_proj c_proj
    float *ln_1, *qkv, *proj, *ln_2, *fc, *fc_proj;
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
    Parameters(Parameters&&) = default;  // and no copy, because it points into its own memory
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

struct LayerActivations {
    LayerNorm ln_1, ln_2;
    Buffer qkv, att, y, gelu, gelu_slope;  // y is attention's output, before proj
    LayerActivations(const Shape& s, int N)
        : ln_1(s.C, N), ln_2(s.C, N), qkv(3 * s.C * N), att(s.H * s.T * N), y(s.C * N), gelu(s.F * N),
          gelu_slope(s.F * N) {}
};

// The token that follows a position of a window: the slot of the prefix there, its logit, and its weight in the loss
struct Target { int column, lane, token; float logit, weight; };

struct QkvRows { Rows& rows; const RowOfSlot& of_slot; };  // q, k and v, or their gradients

struct Activations {  // of a group, and their gradients
    const Shape s;
    const int N = s.columns();
    int filled = 0;                        // columns that its prefixes fill
    Buffer x{s.C * N}, d_x{s.C * N};       // the residual stream
    std::vector<LayerActivations> layers{size_t(s.L), LayerActivations(s, N)};
    LayerNorm ln_f{s.C, N};
    Buffer logits{s.V * N};                // and then their gradients
    Buffer max{N}, log_sum{N}, weight{N};  // a prefix's largest logit, log of the sum of exp(logit - max), and weight
    std::vector<Target> targets{size_t(s.slots())};
    Buffer d_normed{s.C * N};              // of any LayerNorm's output
    Buffer d_hidden{s.F * N}, d_y{s.C * N}, d_qkv{3 * s.C * N}, d_att{s.T * s.T};

    // A prefix's slot and its rows of these have its number. The last row of y_rows is no prefix's: all of it is 0.
    Rows y_rows{s.slots() + 1, s.C}, qkv_rows{s.slots(), 3 * s.C};
    // From slots of prefixes, or of windows' positions, to rows of the table, or to those of prefixes
    RowOfSlot prefix_to_table = RowOfSlot(s.slots());
    RowOfSlot window_to_table = RowOfSlot(s.slots());
    RowOfSlot window_to_prefix = RowOfSlot(s.slots());
    RowOfSlot first_window_to_prefix = RowOfSlot(s.slots());  // to the row of zeros if a window before has it

    QkvRows qkv_of(int layer, Table& table) {
        if (layer == 0) return {table.qkv, window_to_table};
        return {qkv_rows, window_to_prefix};
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
    Parameters params, folded;  // with several heads, folded is a mere copy
    std::vector<float> matrix;  // room for one of C x C
    Table table;
    std::vector<Part> parts;
    std::vector<Activations> activations;  // one for each thread
    std::vector<std::atomic<bool>> taken;
    Step(const Shape& s, int n_threads)
        : s(s), params(s), folded(s), matrix(s.C * s.C), table(s),
          activations(std::min(n_threads, PARTS), Activations{s}), taken(std::max(PARTS, table.chunks)) {
        for (int i = 0; i < PARTS; i++) parts.emplace_back(s);
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
// A layer: q, k and v = qkv(ln_1(x)), then x += proj(attention(q, k, v)), then x += fc_proj(gelu(fc(ln_2(x)))). w and
// d_w are its weights and their gradients. Backward, d_x comes from above, and each piece adds to it.

// N columns of x to rows of q, k and v, from `first` on
void qkv_forward(const Layer& w, LayerActivations& layer, Activations& a, Rows& qkv, int first, int N) {
    const int C = a.s.C;
    layernorm_forward(layer.ln_1, w.ln_1, a.x, C, N);
    linear_forward(layer.qkv, w.qkv, layer.ln_1.out, 3 * C, C, N);
    store(layer.qkv, qkv, InOrder{first}, N);
}

void qkv_backward(const Layer& w, const Layer& d_w, LayerActivations& layer, Activations& a, Rows& d_qkv, int first,
                  int N) {
    const int C = a.s.C;
    load(a.d_qkv, d_qkv, InOrder{first}, N);
    linear_backward(a.d_normed, d_w.qkv, a.d_qkv, w.qkv, layer.ln_1.out, 3 * C, C, N);
    layernorm_backward(a.d_x, d_w.ln_1, a.d_normed, w.ln_1, layer.ln_1, C, N, ADD);
}

void attention_branch_forward(const Layer& w, LayerActivations& layer, Activations& a, QkvRows qkv) {
    const Shape& s = a.s;
    load(layer.qkv, qkv.rows, qkv.of_slot, a.N);  // slots become positions of windows
    attention_forward(layer.y, layer.att, layer.qkv, s.H, s.C, s.T, s.W());
    a.y_rows.clear((a.filled - 1) * LANES, LANES);  // for the slots left over
    store(layer.y, a.y_rows, a.window_to_prefix, a.N);  // windows with one prefix store the same
    load(layer.y, a.y_rows, InOrder{0}, a.filled);  // slots become prefixes
    if (s.proj_in_v())
        for (int i = 0; i < s.C * a.filled; i++) a.x[i] += layer.y[i];
    else
        linear_forward(a.x, w.proj, layer.y, s.C, s.C, a.filled, ADD);
}

// Adds to the gradients of these rows. Windows that have a prefix in common are equal up to there, so one of them can
// take the whole gradient of its y: the first.
void attention_branch_backward(const Layer& w, const Layer& d_w, LayerActivations& layer, Activations& a,
                               QkvRows d_qkv) {
    const Shape& s = a.s;
    if (!s.proj_in_v()) linear_backward(a.d_y, d_w.proj, a.d_x, w.proj, layer.y, s.C, s.C, a.filled);
    store(s.proj_in_v() ? a.d_x : a.d_y, a.y_rows, InOrder{0}, a.filled);
    load(a.d_y, a.y_rows, a.first_window_to_prefix, a.N);
    attention_backward(a.d_qkv, a.d_y, layer.qkv, layer.att, a.d_att, s.H, s.C, s.T, s.W());
    store(a.d_qkv, d_qkv.rows, d_qkv.of_slot, a.N, ADD);
}

void mlp_branch_forward(const Layer& w, LayerActivations& layer, Activations& a) {
    const int C = a.s.C, F = a.s.F, N = a.filled;
    layernorm_forward(layer.ln_2, w.ln_2, a.x, C, N);
    linear_forward(layer.gelu, w.fc, layer.ln_2.out, F, C, N);
    for (int i = 0; i < F * N; i++) layer.gelu[i] = gelu(layer.gelu[i], layer.gelu_slope[i]);
    linear_forward(a.x, w.fc_proj, layer.gelu, C, F, N, ADD);
}

void mlp_branch_backward(const Layer& w, const Layer& d_w, LayerActivations& layer, Activations& a) {
    const int C = a.s.C, F = a.s.F, N = a.filled;
    linear_backward(a.d_hidden, d_w.fc_proj, a.d_x, w.fc_proj, layer.gelu, C, F, N);
    for (int i = 0; i < F * N; i++) a.d_hidden[i] *= layer.gelu_slope[i];
    linear_backward(a.d_normed, d_w.fc, a.d_hidden, w.fc, layer.ln_2.out, F, C, N);
    layernorm_backward(a.d_x, d_w.ln_2, a.d_normed, w.ln_2, layer.ln_2, C, N, ADD);
}

// --------------------------------------------------------------------------------------------------------------------
// The table

template <class E> void sum_into(E* sum, const E* x, int n) {
    for (int i = 0; i < n; i++) sum[i] += x[i];
}

void table_forward(Step& step, Activations& a, int chunk) {
    Table& table = step.table;
    const int C = step.s.C, begin = table.begin(chunk);
    for (int row = begin; row < table.end(chunk); row++) {
        const float *wte = step.folded.wte + table.token(row) * C, *wpe = step.folded.wpe + table.position(row) * C;
        for (int c = 0; c < C; c++) table.x.floats(row)[c] = wte[c] + wpe[c];
    }
    load(a.x, table.x, InOrder{begin}, a.N);
    qkv_forward(step.folded.layers[0], a.layers[0], a, table.qkv, begin, a.N);
}

// From the gradients of a chunk, adds to those of the embeddings and of the first layer before attention
void table_backward(Step& step, Activations& a, Table& d_table, const Parameters& d_folded, int chunk) {
    Table& table = step.table;
    const int C = step.s.C, begin = table.begin(chunk);
    const Layer& w = step.folded.layers[0];
    load(a.x, table.x, InOrder{begin}, a.N);
    layernorm_forward(a.layers[0].ln_1, w.ln_1, a.x, C, a.N);  // again: what it left behind is another chunk's by now
    load(a.d_x, d_table.x, InOrder{begin}, a.N);
    qkv_backward(w, d_folded.layers[0], a.layers[0], a, d_table.qkv, begin, a.N);
    store(a.d_x, d_table.x, InOrder{begin}, a.N);
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
void take_group(Activations& a, const Table& table, const Batch& batch, int begin) {
    const int T = a.s.T;
    auto slot = [&](int window, int t) { return (window / LANES * T + t) * LANES + window % LANES; };
    const int64_t* before = nullptr;
    int prefixes = 0;
    a.weight.clear();
    for (int window = 0; window < a.s.windows(); window++) {
        const int i = std::min(begin + window, batch.n - 1);
        const int64_t* id = batch.ids + batch.start[i];
        const int same = before ? std::mismatch(id, id + T, before).first - id : 0;  // so many prefixes have numbers
        const float weight = begin + window < batch.n ? batch.weight[i] / T : 0.0f;  // of each position
        for (int t = 0; t < T; t++) {
            const int here = slot(window, t);
            const int prefix = t < same ? a.window_to_prefix[slot(window - 1, t)] : prefixes++;
            const int column = prefix / LANES, lane = prefix % LANES;
            a.prefix_to_table[prefix] = a.window_to_table[here] = table.row(t, id[t]);
            a.window_to_prefix[here] = prefix;
            a.first_window_to_prefix[here] = t < same ? a.s.slots() : prefix;
            a.targets[window * T + t] = {column, lane, int(id[t + 1]), 0.0f, weight};
            a.weight[column][lane] += weight;
        }
        before = id;
    }
    // The slots left over have no weight, and keep a row of the table from before, which is as good as any.
    a.filled = (prefixes + LANES - 1) / LANES;
}

void forward(Step& step, Activations& a) {
    const Parameters& folded = step.folded;
    load(a.x, step.table.x, a.prefix_to_table, a.filled);
    for (int i = 0; i < a.s.L; i++) {
        const Layer& w = folded.layers[i];
        if (i > 0) qkv_forward(w, a.layers[i], a, a.qkv_rows, 0, a.filled);  // the first layer's are in the table
        attention_branch_forward(w, a.layers[i], a, a.qkv_of(i, step.table));
        mlp_branch_forward(w, a.layers[i], a);
    }
    layernorm_forward(a.ln_f, folded.ln_f, a.x, a.s.C, a.filled);
    linear_forward(a.logits, folded.head, a.ln_f.out, a.s.V, a.s.C, a.filled);
}

// Returns the windows' mean losses, weighted and summed. A loss is the log of the sum of exp(logit), minus the target's
// logit. The logits become their gradients: the prefix's weight * softmax, minus the weights of its targets.
double cross_entropy(Activations& a) {
    const int V = a.s.V;
    for (Target& t : a.targets) t.logit = a.logits[t.column * V + t.token][t.lane];
    for (int column = 0; column < a.filled; column++) {
        vec* logits = a.logits + column * V;
        const auto [max, sum] = softmax_numerators(logits, V, 1.0f);
        const vec factor = a.weight[column] / sum;
        for (int v = 0; v < V; v++) logits[v] *= factor;
        a.max[column] = max;
        for (int lane = 0; lane < LANES; lane++) a.log_sum[column][lane] = std::log(sum[lane]);
    }
    double loss = 0.0;
    for (const Target& t : a.targets) {
        loss += t.weight * (a.log_sum[t.column][t.lane] + (a.max[t.column][t.lane] - t.logit));  // both are at least 0
        a.logits[t.column * V + t.token][t.lane] -= t.weight;
    }
    return loss;
}

void backward(Step& step, Activations& a, Part& part) {
    const Parameters &folded = step.folded, &d_folded = part.d_folded;
    linear_backward(a.d_normed, d_folded.head, a.logits, folded.head, a.ln_f.out, a.s.V, a.s.C, a.filled);
    layernorm_backward(a.d_x, d_folded.ln_f, a.d_normed, folded.ln_f, a.ln_f, a.s.C, a.filled, SET);
    for (int i = a.s.L - 1; i >= 0; i--) {
        const Layer &w = folded.layers[i], &d_w = d_folded.layers[i];
        mlp_branch_backward(w, d_w, a.layers[i], a);
        if (i > 0) a.qkv_rows.clear();
        attention_branch_backward(w, d_w, a.layers[i], a, a.qkv_of(i, part.d_table));
        if (i > 0) qkv_backward(w, d_w, a.layers[i], a, a.qkv_rows, 0, a.filled);
    }
    store(a.d_x, part.d_table.x, a.prefix_to_table, a.filled, ADD);
}

// --------------------------------------------------------------------------------------------------------------------
// The parts of a batch

// The i-th part, group by group
void run_part(Step& step, Activations& a, const Batch& batch, int i) {
    Part& part = step.parts[i];
    const int windows = step.s.windows(), groups = (batch.n + windows - 1) / windows;
    std::fill(part.d_folded.memory.begin(), part.d_folded.memory.end(), 0.0f);
    part.d_table.x.clear();
    part.d_table.qkv.clear();
    part.loss = 0.0;
    for (int group = groups * i / PARTS; group < groups * (i + 1) / PARTS; group++) {
        take_group(a, step.table, batch, group * windows);
        forward(step, a);
        part.loss += cross_entropy(a);
        backward(step, a, part);
    }
}

// Adds every part's gradients of the table to those of the first, always in the same order, and adds what follows from
// that to the i-th part's gradients of parameters. Chunks are dealt out to parts.
void sum_tables_backward(Step& step, Activations& a, int i) {
    Table& sum = step.parts[0].d_table;
    for (int chunk = i; chunk < sum.chunks; chunk += PARTS) {
        const int begin = sum.begin(chunk);
        for (int j = 1; j < PARTS; j++) {
            Table& other = step.parts[j].d_table;
            sum_into(sum.x.at(begin), other.x.at(begin), sum.chunk_rows * sum.x.registers);
            sum_into(sum.qkv.at(begin), other.qkv.at(begin), sum.chunk_rows * sum.qkv.registers);
        }
        table_backward(step, a, sum, step.parts[i].d_folded, chunk);
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
void unfold(const Shape& s, const Parameters& params, const Parameters& d_params, float* matrix) {
    const DenormalsAreZero in_this_thread;
    const int C = s.C;
    for (int i = 0; s.proj_in_v() && i < s.L; i++) {
        const Layer &w = params.layers[i], &d_w = d_params.layers[i];
        for (int k = 0; k < C * C; k++) matrix[k % C * C + k / C] = w.v(C)[k];
        multiply(d_w.proj, Weights{d_w.v(C), C}, matrix, C);
        std::copy_n(d_w.v(C), C * C, matrix);
        multiply(d_w.v(C), Weights{w.proj, C}.transposed(), matrix, C);
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
    Parameters &params = step->params, &d_params = step->parts[0].d_folded;
    const Batch batch{ids, start, weight, n};

    float* to = params.memory.data();
    for (int i = 0; i < n_tensors; i++) to = std::copy_n(param[i], size[i], to);
    std::copy_n(params.wte, s.V * s.C, params.head);

    fold(s, params, step->folded);
    const int chunks = step->table.chunks;
    step->in_parallel(chunks, [&](int i, Activations& a) { table_forward(*step, a, i); });
    step->in_parallel(PARTS, [&](int i, Activations& a) { run_part(*step, a, batch, i); });
    step->in_parallel(std::min(PARTS, chunks), [&](int i, Activations& a) { sum_tables_backward(*step, a, i); });
    sum_parts(step->parts);
    unfold(s, params, d_params, step->matrix.data());

    const float* from = d_params.memory.data();
    for (int i = 0; i < n_tensors; i++) {
        std::copy_n(from, size[i], grad[i]);
        from += size[i];
    }
    return step->parts[0].loss;
}

// Clips the norm of all gradients together, never where clip is 0, and takes a step of AdamW, both as torch does:
//     g *= min(1, clip / (norm + 1e-6)),  m += (1 - beta1) (g - m),  v = beta2 v + (1 - beta2) g^2,
//     p = (1 - lr decay) p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
// for each tensor p, of which decay is the weight decay, and t the number of steps that it has taken.
extern "C" void step_update(int n_tensors, const int64_t* size, float* const* param, float* const* grad,
                            float* const* exp_avg, float* const* exp_avg_sq, float* const* step, const double* decay,
                            double lr, double beta1, double beta2, double eps, double clip) noexcept {
    const DenormalsAreZero in_this_thread;
    double norm = 0.0;
    for (int i = 0; i < n_tensors; i++)
        for (int64_t j = 0; j < size[i]; j++) norm += double(grad[i][j]) * grad[i][j];
    const double ratio = clip / (std::sqrt(norm) + 1e-6);
    const float factor = clip == 0.0 || ratio > 1.0 ? 1.0 : ratio;  // NaN stays NaN
    for (int i = 0; i < n_tensors; i++) {
        const float t = *step[i] += 1.0f;
        const double correction1 = 1.0 - std::pow(beta1, t), correction2 = 1.0 - std::pow(beta2, t);
        const float keep = 1.0 - lr * decay[i], rate = lr / correction1, root = std::sqrt(correction2);
        const float b2 = beta2, e = eps, c1 = 1.0 - beta1, c2 = 1.0 - beta2;
        float *p = param[i], *m = exp_avg[i], *v = exp_avg_sq[i];
        for (int64_t j = 0; j < size[i]; j++) {
            const float g = grad[i][j] * factor;
            m[j] += c1 * (g - m[j]);
            v[j] = b2 * v[j] + c2 * g * g;
            p[j] = keep * p[j] - rate * m[j] / (std::sqrt(v[j]) / root + e);
        }
    }
}
