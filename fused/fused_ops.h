// The operations of a small GPT, forward and backward, from which fused_step.cpp is built. A SIMD register holds one
// feature of as many positions as it has lanes. So each operation is the scalar formula, written with `vec` for
// `float`, and no lane is idle, however narrow the model is.
//
// Activations are matrices of vec, features x columns, stored column by column. One lane of one column is a slot; its
// number is column * LANES + lane. A slot's features can also be stored as a row of floats, see load() and store().
//
// Letters: H heads, width C, T positions in a window, N columns, O outputs and I inputs of a linear layer.
// d_x is the gradient of x. Gradients of weights are added to what is there, all others are written, unless told ADD.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace {  // so that no other library can replace anything of this one

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX2__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;  // SSE2, ARM's NEON, and whatever else there is
#endif
constexpr int LANES = BYTES / sizeof(float);
typedef float vec __attribute__((vector_size(BYTES)));
typedef int32_t ivec __attribute__((vector_size(BYTES)));

// While one of these lives, its thread takes numbers below 1.2e-38, which are stored in another way (denormal), for 0.
// A trained model has many of them, in gradients and in probabilities times weights, and Intel's processors need a
// hundred times longer for each. The thread's own setting is restored in the end. None of these may live around a
// parallel region: threads that begin there would inherit the setting and keep it, and torch computes with them, too.
// What is computed in between has to be loaded from memory and stored there, because those are what the compiler does
// not move past a change of the setting.
struct DenormalsAreZero {
#if defined(__SSE2__)
    const unsigned before = _mm_getcsr();
    DenormalsAreZero() { _mm_setcsr(before | 0x8040); }  // MXCSR: results (FTZ, bit 15) and inputs (DAZ, bit 6)
    ~DenormalsAreZero() { _mm_setcsr(before); }
#elif defined(__aarch64__)
    uint64_t before;
    DenormalsAreZero() {
        asm volatile("mrs %0, fpcr" : "=r"(before));
        asm volatile("msr fpcr, %0" ::"r"(before | 1 << 24) : "memory");  // FPCR: both (FZ, bit 24)
    }
    ~DenormalsAreZero() { asm volatile("msr fpcr, %0" ::"r"(before) : "memory"); }
#else
    DenormalsAreZero() {}
#endif
    DenormalsAreZero(const DenormalsAreZero&) = delete;
};

// --------------------------------------------------------------------------------------------------------------------
// Functions of vectors

// exp of x <= 0: x = n log 2 + r with |r| <= log(2) / 2, and exp(r) by the polynomial of Cephes' expf (Moshier), to
// 1e-7 of the value. Below -87 it is exp(-87), about 1e-38, because 2^n must not leave the range of float.
inline vec exp_negative(vec x) {
    x = x < -87.0f ? vec{} - 87.0f : x;
    const ivec n = __builtin_convertvector(x * 1.44269504f - 0.5f, ivec);  // truncated to the nearest, because x <= 0
    const vec n_float = __builtin_convertvector(n, vec);
    const vec r = x - n_float * 0.693359375f - n_float * -2.12194440e-4f;  // log 2 in two parts: the first one is exact
    vec y = 1.9875691500e-4f * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    return (y * r * r + r + 1.0f) * (vec)((n + 127) << 23);  // n + 127 in the bits of the exponent: 2^n
}

// GELU(h) = h Phi(h), and its derivative Phi(h) + h phi(h). Phi, the normal distribution, is formula 7.1.26 of
// Abramowitz and Stegun, accurate to 1e-7, because it shares exp(-h^2 / 2) with phi, the normal density.
inline vec gelu(vec h, vec& derivative) {
    const vec e = exp_negative(-0.5f * h * h);
    const vec t = 1.0f / (1.0f + 0.3275911f * 0.70710678f * (h < 0.0f ? -h : h));
    vec tail = 1.061405429f * t - 1.453152027f;
    tail = tail * t + 1.421413741f;
    tail = tail * t - 0.284496736f;
    tail = tail * t + 0.254829592f;
    tail *= 0.5f * t * e;
    const vec Phi = h < 0.0f ? tail : 1.0f - tail;
    derivative = Phi + h * e * 0.39894228f;  // 1 / sqrt(2 pi)
    return h * Phi;
}

// The numerators of softmax(scale * x): x[i] becomes exp(scale * (x[i] - max)). Their sum is the denominator.
struct MaxAndSum { vec max, sum; };
inline MaxAndSum softmax_numerators(vec* x, int n, float scale) {
    vec max = x[0], sum = {};
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) {
        x[i] = exp_negative((x[i] - max) * scale);
        sum += x[i];
    }
    return {max, sum};
}

[[gnu::always_inline]] inline float sum_lanes(vec x) {
    typedef float quad __attribute__((vector_size(16)));
    quad q[LANES / 4];
    std::memcpy(q, &x, BYTES);
    for (int i = 1; i < LANES / 4; i++) q[0] += q[i];
    return (q[0][0] + q[0][1]) + (q[0][2] + q[0][3]);
}

enum Write { SET, ADD };  // out = x, or out += x

// Writes an element of a matrix: all lanes into a vec, their sum into a float, as gradients of weights are
[[gnu::always_inline]] inline void put(vec& out, vec x, Write how) { out = how == ADD ? out + x : x; }
[[gnu::always_inline]] inline void put(float& out, vec x, Write how) {
    out = how == ADD ? out + sum_lanes(x) : sum_lanes(x);
}

// --------------------------------------------------------------------------------------------------------------------
// Columns of vec from rows of floats, and back

// a[0], b[0], a[1], b[1], ... from the lanes of two vectors, the first half of them and the second
template <int... I>
[[gnu::always_inline]] inline void interleave(vec a, vec b, vec* out, std::integer_sequence<int, I...>) {
    out[0] = vec{(I % 2 ? b : a)[I / 2]...};
    out[1] = vec{(I % 2 ? b : a)[(LANES + I) / 2]...};
}

// LANES rows of LANES floats become columns. To interleave rows i and i + LANES / 2 moves the top digit of the row's
// number, written in binary, to the end of the lane's, and the top digit of the lane's to the end of the row's. After
// log2(LANES) rounds the two numbers have changed places.
inline void transpose(vec* x) {
    vec y[LANES];
    for (int size = 1; size < LANES; size *= 2) {
        for (int i = 0; i < LANES / 2; i++)
            interleave(x[i], x[i + LANES / 2], y + 2 * i, std::make_integer_sequence<int, LANES>());
        for (int i = 0; i < LANES; i++) x[i] = y[i];
    }
}

struct Buffer {  // of n vectors, mostly features x columns; load() writes up to LANES vectors after the end
    std::vector<vec> memory;
    explicit Buffer(int n) : memory(n + LANES) {}
    operator vec*() { return memory.data(); }
    void clear() { std::fill(memory.begin(), memory.end(), vec{}); }
};

struct Rows {  // of n floats, each padded to whole registers
    int n, registers;  // of a row
    std::vector<vec> memory;
    Rows(int rows, int n) : n(n), registers((n + LANES - 1) / LANES), memory(rows * registers) {}
    vec* at(int row) { return memory.data() + row * registers; }
    float* floats(int row) { return (float*)at(row); }
    void clear(int first, int rows) { std::fill_n(at(first), rows * registers, vec{}); }
    void clear() { std::fill(memory.begin(), memory.end(), vec{}); }
};

// Which row each slot has: any, or those from `first` on, one after another
using RowOfSlot = std::vector<int>;
struct InOrder {
    int first;
    int operator[](int slot) const { return first + slot; }
};

// Each slot of N columns takes its features from its row. The padding of a row is moved along, and overwritten by the
// next column.
template <class RowOf> void load(vec* x, Rows& rows, const RowOf& row, int N) {
    for (int column = 0; column < N; column++, x += rows.n)
        for (int j = 0; j < rows.registers; j++) {
            vec square[LANES];
            for (int lane = 0; lane < LANES; lane++) square[lane] = rows.at(row[column * LANES + lane])[j];
            transpose(square);
            for (int i = 0; i < LANES; i++) x[j * LANES + i] = square[i];
        }
}

// Each slot's features go to its row. Loops copy squares, because g++ makes a slow call of memcpy of so much.
template <class RowOf> void store(const vec* x, Rows& rows, const RowOf& row, int N, Write how = SET) {
    for (int column = 0; column < N; column++, x += rows.n)
        for (int j = 0; j < rows.registers; j++) {
            vec square[LANES];
            for (int i = 0; i < LANES; i++) square[i] = x[j * LANES + i];
            transpose(square);
            for (int lane = 0; lane < LANES; lane++) put(rows.at(row[column * LANES + lane])[j], square[lane], how);
        }
}

// --------------------------------------------------------------------------------------------------------------------
// Matrix products. All of them are out(i, j) = or += sum over k of a(i, k) * b(k, j), lane by lane.

// A matrix stored by rows or by columns. E is vec, or float for weights, which are the same in all lanes.
template <class E, bool BY_ROWS> struct View {
    E* data;
    int64_t stride;  // from a row to the next, or from a column to the next
    E& operator()(int64_t i, int64_t j) const { return BY_ROWS ? data[i * stride + j] : data[j * stride + i]; }
    View from(int i, int j) const { return {&(*this)(i, j), stride}; }  // the matrix from there on
    View<E, !BY_ROWS> transposed() const { return {data, stride}; }
};
using Features = View<vec, false>;  // features x columns
using Scores = View<vec, true>;     // of attention: a row for each query
using Weights = View<const float, true>;

// R rows and S columns of a product, whose sums stay in registers. Always inlined and unrolled, because a call and the
// loops over r and s would take longer than the sums.
template <int R, int S, class Out, class A, class B>
[[gnu::always_inline]] inline void tile(Out out, A a, B b, int k_begin, int k_end, Write how) {
    vec sum[R][S] = {};
#pragma GCC unroll 2
    for (int k = k_begin; k < k_end; k++) {
        for (int r = 0; r < R; r++)
            for (int s = 0; s < S; s++) sum[r][s] += a(r, k) * b(k, s);
    }
    for (int r = 0; r < R; r++)
        for (int s = 0; s < S; s++) put(out(r, s), sum[r][s], how);
}

// What causal attention knows of a product: only the lower half of out is needed, or a is zero outside a half. The
// diagonal belongs to either half.
enum Triangle { FULL, LOWER_OUT, LOWER_A, UPPER_A };

// S columns of a product, those from column j on, and its rows from i on: tiles of R rows, then a smaller one
template <int R, int S, class Out, class A, class B>
void strip(Out out, A a, B b, int i, int I, int j, int K, Write how, Triangle triangle) {
    for (; i + R <= I; i += R) {
        if (triangle == LOWER_OUT && j >= i + R) continue;
        const int k_begin = triangle == UPPER_A ? i : 0;
        const int k_end = triangle == LOWER_A ? std::min(i + R, K) : K;
        tile<R, S>(out.from(i, j), a.from(i, 0), b.from(0, j), k_begin, k_end, how);
    }
    if constexpr (R > 1)
        if (i < I) strip<R - 1, S>(out, a, b, i, I, j, K, how, triangle);
}

// I rows and J columns of sums of K products, in strips of S columns, then a narrower one. Tiles of 3 x 3 fill the 16
// registers of AVX2; with the 32 of AVX-512, larger ones are no quicker.
template <int S = 3, class Out, class A, class B>
void product(Out out, A a, B b, int I, int J, int K, Write how = SET, Triangle triangle = FULL, int j = 0) {
    for (; j + S <= J; j += S) strip<3, S>(out, a, b, 0, I, j, K, how, triangle);
    if constexpr (S > 1)
        if (j < J) product<S - 1>(out, a, b, I, J, K, how, triangle, j);
}

// --------------------------------------------------------------------------------------------------------------------
// The layers

// out = or += w x, where w is a matrix of O rows and I columns
void linear_forward(vec* out, const float* w, vec* x, int O, int I, int N, Write how = SET) {
    product(Features{out, O}, Weights{w, I}, Features{x, I}, O, N, I, how);
}

// d_w += d_out x^T, and d_x = w^T d_out
void linear_backward(vec* d_x, float* d_w, vec* d_out, const float* w, vec* x, int O, int I, int N) {
    product(View<float, true>{d_w, I}, Features{d_out, O}, Features{x, I}.transposed(), O, I, N, ADD);
    product(Features{d_x, I}, Weights{w, I}.transposed(), Features{d_out, O}, I, N, O);
}

// out = w * x_hat, where x_hat = (x - mean) * rstd, and rstd = 1 / standard deviation
struct LayerNorm {
    Buffer out, x_hat, rstd, d_w;  // d_w is room for the gradient of w, lane by lane
    LayerNorm(int C, int N) : out(C * N), x_hat(C * N), rstd(N), d_w(C) {}
};

void layernorm_forward(LayerNorm& ln, const float* w, const vec* x, int C, int N) {
    for (int column = 0; column < N; column++, x += C) {
        vec *out = ln.out + column * C, *x_hat = ln.x_hat + column * C, mean = {}, var = {};
        for (int c = 0; c < C; c++) mean += x[c];
        mean *= 1.0f / C;
        for (int c = 0; c < C; c++) {
            x_hat[c] = x[c] - mean;
            var += x_hat[c] * x_hat[c];
        }
        vec deviation = var * (1.0f / C) + 1e-5f;  // PyTorch's eps
        for (int lane = 0; lane < LANES; lane++) deviation[lane] = std::sqrt(deviation[lane]);
        ln.rstd[column] = 1.0f / deviation;
        for (int c = 0; c < C; c++) {
            x_hat[c] *= ln.rstd[column];
            out[c] = w[c] * x_hat[c];
        }
    }
}

// d_w += d_out * x_hat, summed over columns, and d_x = or += (d_x_hat - mean(d_x_hat) - x_hat mean(d_x_hat * x_hat)) *
// rstd, where d_x_hat = w * d_out, and the means are over the features
void layernorm_backward(vec* d_x, float* d_w, const vec* d_out, const float* w, LayerNorm& ln, int C, int N,
                        Write how) {
    vec* __restrict sum = ln.d_w;  // else g++ reads w again after each write to it
    std::fill_n(sum, C, vec{});
    for (int column = 0; column < N; column++, d_x += C, d_out += C) {
        const vec* x_hat = ln.x_hat + column * C;
        vec mean = {}, dot = {};
        for (int c = 0; c < C; c++) {
            const vec d_w_c = d_out[c] * x_hat[c];
            sum[c] += d_w_c;
            mean += w[c] * d_out[c];
            dot += w[c] * d_w_c;
        }
        mean *= 1.0f / C;
        dot *= 1.0f / C;
        for (int c = 0; c < C; c++) put(d_x[c], (w[c] * d_out[c] - mean - x_hat[c] * dot) * ln.rstd[column], how);
    }
    for (int c = 0; c < C; c++) put(d_w[c], sum[c], ADD);
}

// Attention has W windows in each lane, T columns each, one after another. A column of qkv has C features of q, then
// those of k and of v, and of each first those of the first head.
struct Head {  // of one window: size x T each
    Features q, k, v;
    Head(vec* qkv, int window, int head, int size, int C, int T)
        : q{qkv + window * T * 3 * C + head * size, 3 * C}, k(q.from(C, 0)), v(q.from(2 * C, 0)) {}
};

// att = softmax(q^T k / sqrt(size)), causal, of each window and head, and y = v att^T
void attention_forward(vec* y, vec* att, vec* qkv, int H, int C, int T, int W) {
    const int size = C / H;
    const float scale = 1.0f / std::sqrt((float)size);
    for (int window = 0; window < W; window++)
        for (int h = 0; h < H; h++) {
            const Head in(qkv, window, h, size, C, T);
            const Features out{y + window * T * C + h * size, C};
            const Scores p{att + (window * H + h) * T * T, T};
            product(p, in.q.transposed(), in.k, T, T, size, SET, LOWER_OUT);
            for (int t = 0; t < T; t++) {
                const vec factor = 1.0f / softmax_numerators(&p(t, 0), t + 1, scale).sum;
                for (int u = 0; u < T; u++) p(t, u) = u <= t ? p(t, u) * factor : vec{};
            }
            product(out.transposed(), p, in.v.transposed(), T, size, T, SET, LOWER_A);
        }
}

// d_att = d_y^T v and d_v = d_y att. The gradient of the scores q^T k is that of softmax, row by row:
// att * (d_att - sum(att * d_att)) / sqrt(size). Then d_q = k d_scores^T and d_k = q d_scores. d_att, which becomes
// d_scores, is room for one head of one window.
void attention_backward(vec* d_qkv, vec* d_y, vec* qkv, vec* att, vec* d_att, int H, int C, int T, int W) {
    const int size = C / H;
    const float scale = 1.0f / std::sqrt((float)size);
    for (int window = 0; window < W; window++)
        for (int h = 0; h < H; h++) {
            const Head in(qkv, window, h, size, C, T), d_in(d_qkv, window, h, size, C, T);
            const Features d_out{d_y + window * T * C + h * size, C};
            const Scores p{att + (window * H + h) * T * T, T}, d_p{d_att, T};
            product(d_p, d_out.transposed(), in.v, T, T, size, SET, LOWER_OUT);
            product(d_in.v.transposed(), p.transposed(), d_out.transposed(), T, size, T, SET, UPPER_A);
            for (int t = 0; t < T; t++) {
                vec dot = {};
                for (int u = 0; u <= t; u++) dot += p(t, u) * d_p(t, u);
                for (int u = 0; u < T; u++) d_p(t, u) = u <= t ? p(t, u) * (d_p(t, u) - dot) * scale : vec{};
            }
            product(d_in.q.transposed(), d_p, in.k.transposed(), T, size, T, SET, LOWER_A);
            product(d_in.k.transposed(), d_p.transposed(), in.q.transposed(), T, size, T, SET, UPPER_A);
        }
}

}  // namespace
