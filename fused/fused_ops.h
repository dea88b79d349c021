// The operations of a small GPT, forward and backward, from which fused_step.cpp is built. The lanes of a SIMD register
// hold the same number of different windows of a batch, or of prefixes, so each operation is the scalar formula,
// written with `vec` for `float`, and hardly a lane is idle, however narrow the model is.
//
// Letters: L layers, H heads, width C, MLP of hidden width F, T positions in a window, vocabulary V. A lane of a block
// holds W windows laid end to end, because products are quicker over more positions: P = W * T. Only attention sees
// where a window ends. d_x is the gradient of x.

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
static inline vec exp_negative(vec x) {
    x = x < -87.0f ? vec{} - 87.0f : x;
    const ivec n = __builtin_convertvector(x * 1.44269504f - 0.5f, ivec);  // truncated to the nearest, because x <= 0
    const vec z = __builtin_convertvector(n, vec);
    const vec r = x - z * 0.693359375f - z * -2.12194440e-4f;  // log 2 in two parts, because the first one is exact
    vec y = 1.9875691500e-4f * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f, y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f, y = y * r + 5.0000001201e-1f;
    return (y * r * r + r + 1.0f) * (vec)((n + 127) << 23);  // n + 127 in the bits of the exponent: 2^n
}

// GELU(h) = h Phi(h), and its derivative Phi(h) + h phi(h). Phi, the normal distribution, is formula 7.1.26 of
// Abramowitz and Stegun, accurate to 1e-7, because it shares exp(-h^2 / 2) with phi, the normal density.
static inline vec gelu(vec h, vec& derivative) {
    const vec e = exp_negative(-0.5f * h * h), t = 1.0f / (1.0f + 0.3275911f * 0.70710678f * (h < 0.0f ? -h : h));
    vec tail = 1.061405429f * t - 1.453152027f;
    tail = tail * t + 1.421413741f, tail = tail * t - 0.284496736f, tail = tail * t + 0.254829592f;
    tail *= 0.5f * t * e;
    const vec Phi = h < 0.0f ? tail : 1.0f - tail;
    derivative = Phi + h * e * 0.39894228f;  // 1 / sqrt(2 pi)
    return h * Phi;
}

// x[i] becomes exp(scale * (x[i] - max)), max being their maximum; returns the sum
static inline vec exp_all(vec* x, int n, float scale, vec& max) {
    max = x[0];
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    vec total = {};
    for (int i = 0; i < n; i++) total += x[i] = exp_negative((x[i] - max) * scale);
    return total;
}

// a[0], b[0], a[1], b[1], ... from the lanes of two vectors, the first half of them and the second
template <int... I>
[[gnu::always_inline]] inline void interleave(vec a, vec b, vec* out, std::integer_sequence<int, I...>) {
    out[0] = vec{(I % 2 ? b : a)[I / 2]...};
    out[1] = vec{(I % 2 ? b : a)[(LANES + I) / 2]...};
}

// LANES rows of LANES floats become columns. To interleave rows i and i + LANES / 2 moves the top digit of the row's
// number, written in binary, to the end of the lane's, and the top digit of the lane's to the end of the row's. After
// log2(LANES) rounds the two numbers have changed places.
static inline void transpose(vec* x) {
    vec y[LANES];
    for (int size = 1; size < LANES; size *= 2) {
        for (int i = 0; i < LANES / 2; i++)
            interleave(x[i], x[i + LANES / 2], y + 2 * i, std::make_integer_sequence<int, LANES>());
        for (int i = 0; i < LANES; i++) x[i] = y[i];
    }
}

struct Rows {  // of n floats, each padded to whole registers
    int n, step;  // a row has `step` registers
    std::vector<vec> memory;
    Rows(int rows, int n) : n(n), step((n + LANES - 1) / LANES), memory(rows * step) {}
    vec* at(int row) { return memory.data() + row * step; }
    float* floats(int row) { return (float*)at(row); }
    void clear(int first, int rows) { std::fill_n(at(first), rows * step, vec{}); }
};

// Lanes take their n features at P positions from rows: lane l of position p from row begin + number[p * LANES + l]. x
// has LANES vectors after its end, because what is beyond the n-th is moved along and overwritten.
static void load(vec* x, Rows& rows, const std::vector<int>& number, int P, int begin = 0) {
    for (int p = 0; p < P; p++, x += rows.n)
        for (int j = 0; j < rows.step; j++) {
            vec square[LANES];
            for (int l = 0; l < LANES; l++) square[l] = rows.at(begin + number[p * LANES + l])[j];
            transpose(square);
            for (int l = 0; l < LANES; l++) x[j * LANES + l] = square[l];
        }
}

// Writes x into the rows, or adds it. Loops copy squares, because g++ makes a slow call of memcpy of so much.
static void store(const vec* x, Rows& rows, const std::vector<int>& number, int P, bool add, int begin = 0) {
    for (int p = 0; p < P; p++, x += rows.n)
        for (int j = 0; j < rows.step; j++) {
            vec square[LANES];
            for (int l = 0; l < LANES; l++) square[l] = x[j * LANES + l];
            transpose(square);
            for (int l = 0; l < LANES; l++) {
                vec& row = rows.at(begin + number[p * LANES + l])[j];
                row = add ? row + square[l] : square[l];
            }
        }
}

struct Shape {  // fused_step.py passes these numbers as an array
    int L, H, C, F, T, V;
    int W() const { return std::max(1, 18 / T); }  // measured: up to 18 positions are quicker together, more are not
    int P() const { return W() * T; }
    int lanes() const { return P() * LANES; }
};

// --------------------------------------------------------------------------------------------------------------------
// Matrix products. All of them are out(i, j) = or += sum over k of a(i, k) * b(k, j), lane by lane.

// A matrix stored by rows or by columns. E is vec, or float for weights, which are the same in all lanes.
template <class E, bool BY_ROWS> struct View {
    E* p;
    int64_t step;  // from a row to the next, or from a column to the next
    E& operator()(int64_t i, int64_t j) const { return BY_ROWS ? p[i * step + j] : p[j * step + i]; }
    View at(int i, int j) const { return {&(*this)(i, j), step}; }
    View<E, !BY_ROWS> t() const { return {p, step}; }
};
using Features = View<vec, false>;  // features x positions, stored position by position

[[gnu::always_inline]] inline float sum_lanes(vec x) {
    typedef float quad __attribute__((vector_size(16)));
    quad q[LANES / 4];
    std::memcpy(q, &x, BYTES);
    for (int i = 1; i < LANES / 4; i++) q[0] += q[i];
    return (q[0][0] + q[0][1]) + (q[0][2] + q[0][3]);
}

// Writes an element of a matrix: all lanes into one of vec, their sum into one of floats, as gradients of weights are
[[gnu::always_inline]] inline void put(vec& out, vec x, bool add) { out = add ? out + x : x; }
[[gnu::always_inline]] inline void put(float& out, vec x, bool add) { out = add ? out + sum_lanes(x) : sum_lanes(x); }

// R rows and S columns of a product, whose sums stay in registers. Always inlined and unrolled, because a call and the
// loops over r and s would take longer than the sums.
template <int R, int S, class Out, class A, class B>
[[gnu::always_inline]] inline void tile(Out out, A a, B b, int k_begin, int k_end, bool add) {
    vec sum[R][S] = {};
#pragma GCC unroll 2
    for (int k = k_begin; k < k_end; k++) {
        for (int r = 0; r < R; r++)
            for (int s = 0; s < S; s++) sum[r][s] += a(r, k) * b(k, s);
    }
    for (int r = 0; r < R; r++)
        for (int s = 0; s < S; s++) put(out(r, s), sum[r][s], add);
}

// Of causal attention: only this half of out is needed, or a is zero outside this half.
enum Triangle { NONE, LOWER_OUT, LOWER_A, UPPER_A };

// S columns of a product from column j on: tiles of R rows, and for the rest a smaller one
template <int R, int S, class Out, class A, class B>
static void columns(Out out, A a, B b, int i, int I, int j, int K, bool add, Triangle triangle) {
    for (; i + R <= I; i += R) {
        if (triangle == LOWER_OUT && j >= i + R) continue;
        const int k_begin = triangle == UPPER_A ? i : 0, k_end = triangle == LOWER_A ? std::min(i + R, K) : K;
        tile<R, S>(out.at(i, j), a.at(i, 0), b.at(0, j), k_begin, k_end, add);
    }
    if constexpr (R > 1) if (i < I) columns<R - 1, S>(out, a, b, i, I, j, K, add, triangle);
}

// I rows and J columns of sums of K products. Tiles of 3 x 3 fill the 16 registers of AVX2; with the 32 of AVX-512,
// larger ones are no quicker.
template <int S = 3, class Out, class A, class B>
static void product(Out out, A a, B b, int I, int J, int K, bool add = false, Triangle triangle = NONE, int j = 0) {
    for (; j + S <= J; j += S) columns<3, S>(out, a, b, 0, I, j, K, add, triangle);
    if constexpr (S > 1) if (j < J) product<S - 1>(out, a, b, I, J, K, add, triangle, j);
}

// --------------------------------------------------------------------------------------------------------------------
// The layers

// A LayerNorm's output w * y, and for its gradient y, 1 / standard deviation, and room for that of w, lane by lane
struct Norm { vec *out, *y, *rstd, *d_w; };

// out = or += w x, where w is a matrix of O rows and I columns, for P positions
static void linear(vec* out, const float* w, vec* x, int O, int I, int P, bool add = false) {
    product(Features{out, O}, View<const float, true>{w, I}, Features{x, I}, O, P, I, add);
}

static void linear_backward(vec* d_x, float* d_w, vec* d_out, const float* w, vec* x, int O, int I, int P) {
    product(View<float, true>{d_w, I}, Features{d_out, O}, Features{x, I}.t(), O, I, P, true);
    product(Features{d_x, I}, View<const float, true>{w, I}.t(), Features{d_out, O}, I, P, O);
}

static void normalize(const vec* x, const float* w, const Norm& n, int P, int C) {
    for (int p = 0; p < P; p++, x += C) {
        vec *y = n.y + p * C, mean = {}, var = {};
        for (int c = 0; c < C; c++) mean += x[c];
        mean *= 1.0f / C;
        for (int c = 0; c < C; c++) y[c] = x[c] - mean, var += y[c] * y[c];
        vec deviation = var * (1.0f / C) + 1e-5f;
        for (int l = 0; l < LANES; l++) deviation[l] = std::sqrt(deviation[l]);
        n.rstd[p] = 1.0f / deviation;
        for (int c = 0; c < C; c++) y[c] *= n.rstd[p];
        for (int c = 0; c < C; c++) n.out[p * C + c] = w[c] * y[c];
    }
}

// d_w += d_out * y, summed over positions, and d_x = or += (d_y - mean(d_y) - y mean(d_y * y)) / standard deviation, where
// d_y = w * d_out, and the means are over the features
static void normalize_backward(vec* d_x, float* d_w, const vec* d_out, const float* w, const Norm& n, int P, int C,
                               bool add) {
    std::fill_n(n.d_w, C, vec{});
    for (int p = 0; p < P; p++, d_x += C, d_out += C) {
        const vec* y = n.y + p * C;
        vec mean = {}, dot = {};
        for (int c = 0; c < C; c++) {
            const vec product = d_out[c] * y[c];
            n.d_w[c] += product;
            mean += w[c] * d_out[c];
            dot += w[c] * product;
        }
        mean *= 1.0f / C;
        dot *= 1.0f / C;
        for (int c = 0; c < C; c++) put(d_x[c], (w[c] * d_out[c] - mean - y[c] * dot) * n.rstd[p], add);
    }
    for (int c = 0; c < C; c++) put(d_w[c], n.d_w[c], true);
}

static void attend(const Shape& s, vec* qkv, vec* attention, vec* y) {
    const int T = s.T, C = s.C, size = C / s.H;
    for (int w = 0; w < s.W(); w++)
        for (int h = 0; h < s.H; h++) {
            Features q{qkv + w * T * 3 * C + h * size, 3 * C}, k = q.at(C, 0), v = q.at(2 * C, 0);
            View<vec, true> att{attention + (w * s.H + h) * T * T, T};
            product(att, q.t(), k, T, T, size, false, LOWER_OUT);
            for (int t = 0; t < T; t++) {
                vec max, factor = 1.0f / exp_all(&att(t, 0), t + 1, 1.0f / std::sqrt((float)size), max);
                for (int u = 0; u < T; u++) att(t, u) = u <= t ? att(t, u) * factor : vec{};
            }
            product(Features{y + w * T * C + h * size, C}.t(), att, v.t(), T, size, T, false, LOWER_A);
        }
}

static void attend_backward(const Shape& s, vec* qkv, vec* attention, vec* d_y, vec* d_qkv, vec* d_attention) {
    const int T = s.T, C = s.C, size = C / s.H;
    const float scale = 1.0f / std::sqrt((float)size);
    for (int w = 0; w < s.W(); w++)
        for (int h = 0; h < s.H; h++) {
            Features q{qkv + w * T * 3 * C + h * size, 3 * C}, k = q.at(C, 0), v = q.at(2 * C, 0);
            Features d_q{d_qkv + (q.p - qkv), 3 * C}, d_k = d_q.at(C, 0), d_v = d_q.at(2 * C, 0);
            View<vec, true> att{attention + (w * s.H + h) * T * T, T}, d_att{d_attention, T};
            Features d_head{d_y + w * T * C + h * size, C};
            product(d_att, d_head.t(), v, T, T, size, false, LOWER_OUT);
            product(d_v.t(), att.t(), d_head.t(), T, size, T, false, UPPER_A);
            for (int t = 0; t < T; t++) {
                vec dot = {};
                for (int u = 0; u <= t; u++) dot += att(t, u) * d_att(t, u);
                for (int u = 0; u < T; u++) d_att(t, u) = u <= t ? att(t, u) * (d_att(t, u) - dot) * scale : vec{};
            }
            product(d_q.t(), d_att, k.t(), T, size, T, false, LOWER_A);
            product(d_k.t(), d_att.t(), q.t(), T, size, T, false, UPPER_A);
        }
}

