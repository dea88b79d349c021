// The operations of a small GPT, forward and backward, from which fused_step.cpp is built. A SIMD register holds one
// feature of as many windows (or prefixes) as it has lanes. So each operation is the scalar formula, written with `vec`
// for `float`, and no lane is idle, however narrow the model is.
//
// Letters: L layers, H heads, width C, MLP of hidden width F, T positions in a window, vocabulary V. A lane holds W
// windows laid end to end, because products are quicker over more positions: P = W * T. Only attention sees where a
// window ends. A slot is one lane at one position; its number is position * LANES + lane. d_x is the gradient of x.

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

// x[i] becomes exp(scale * (x[i] - max)), max being their maximum, and total is the sum of that
struct MaxAndTotal { vec max, total; };
inline MaxAndTotal exp_all(vec* x, int n, float scale) {
    vec max = x[0], total = {};
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) {
        x[i] = exp_negative((x[i] - max) * scale);
        total += x[i];
    }
    return {max, total};
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
inline void transpose(vec* x) {
    vec y[LANES];
    for (int size = 1; size < LANES; size *= 2) {
        for (int i = 0; i < LANES / 2; i++)
            interleave(x[i], x[i + LANES / 2], y + 2 * i, std::make_integer_sequence<int, LANES>());
        for (int i = 0; i < LANES; i++) x[i] = y[i];
    }
}

struct Rows {  // of n floats, each padded to whole registers
    int n, registers;  // of a row
    std::vector<vec> memory;
    Rows(int rows, int n) : n(n), registers((n + LANES - 1) / LANES), memory(rows * registers) {}
    vec* at(int row) { return memory.data() + row * registers; }
    float* floats(int row) { return (float*)at(row); }
    void clear(int first, int rows) { std::fill_n(at(first), rows * registers, vec{}); }
};

struct From {  // the rows from `first` on, one for each slot: instead of a vector that names the rows of slots
    int first;
    int operator[](int slot) const { return first + slot; }
};

// Each slot of P positions takes its n features from the row that `row` names. x has LANES vectors after its end,
// because the padding of a row is moved along, and overwritten by the next position.
template <class Numbers> void load(vec* x, Rows& rows, const Numbers& row, int P) {
    for (int p = 0; p < P; p++, x += rows.n)
        for (int j = 0; j < rows.registers; j++) {
            vec square[LANES];
            for (int lane = 0; lane < LANES; lane++) square[lane] = rows.at(row[p * LANES + lane])[j];
            transpose(square);
            for (int i = 0; i < LANES; i++) x[j * LANES + i] = square[i];
        }
}

// Writes x into the rows, or adds it. Loops copy squares, because g++ makes a slow call of memcpy of so much.
template <class Numbers> void store(const vec* x, Rows& rows, const Numbers& row, int P, bool add) {
    for (int p = 0; p < P; p++, x += rows.n)
        for (int j = 0; j < rows.registers; j++) {
            vec square[LANES];
            for (int i = 0; i < LANES; i++) square[i] = x[j * LANES + i];
            transpose(square);
            for (int lane = 0; lane < LANES; lane++) {
                vec& out = rows.at(row[p * LANES + lane])[j];
                out = add ? out + square[lane] : square[lane];
            }
        }
}

struct Shape {  // fused_step.py passes these numbers as an array
    int L, H, C, F, T, V;
    int W() const { return std::max(1, 18 / T); }  // measured: up to 18 positions are quicker together, more are not
    int P() const { return W() * T; }
    int windows() const { return W() * LANES; }
    int slots() const { return P() * LANES; }
    bool proj_in_v() const { return H == 1; }  // see fused_step.cpp
    int parameters() const { return V * C + T * C + L * (C + 3 * C * C + C * C + C + F * C + C * F) + C; }
};

// --------------------------------------------------------------------------------------------------------------------
// Matrix products. All of them are out(i, j) = or += sum over k of a(i, k) * b(k, j), lane by lane.

// A matrix stored by rows or by columns. E is vec, or float for weights, which are the same in all lanes.
template <class E, bool BY_ROWS> struct View {
    E* p;
    int64_t stride;  // from a row to the next, or from a column to the next
    E& operator()(int64_t i, int64_t j) const { return BY_ROWS ? p[i * stride + j] : p[j * stride + i]; }
    View at(int i, int j) const { return {&(*this)(i, j), stride}; }
    View<E, !BY_ROWS> transposed() const { return {p, stride}; }
};
using Features = View<vec, false>;  // features x positions, stored position by position
using Weights = View<const float, true>;

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
void columns(Out out, A a, B b, int i, int I, int j, int K, bool add, Triangle triangle) {
    for (; i + R <= I; i += R) {
        if (triangle == LOWER_OUT && j >= i + R) continue;
        const int k_begin = triangle == UPPER_A ? i : 0;
        const int k_end = triangle == LOWER_A ? std::min(i + R, K) : K;
        tile<R, S>(out.at(i, j), a.at(i, 0), b.at(0, j), k_begin, k_end, add);
    }
    if constexpr (R > 1)
        if (i < I) columns<R - 1, S>(out, a, b, i, I, j, K, add, triangle);
}

// I rows and J columns of sums of K products. Tiles of 3 x 3 fill the 16 registers of AVX2; with the 32 of AVX-512,
// larger ones are no quicker.
template <int S = 3, class Out, class A, class B>
void product(Out out, A a, B b, int I, int J, int K, bool add = false, Triangle triangle = NONE, int j = 0) {
    for (; j + S <= J; j += S) columns<3, S>(out, a, b, 0, I, j, K, add, triangle);
    if constexpr (S > 1)
        if (j < J) product<S - 1>(out, a, b, I, J, K, add, triangle, j);
}

// --------------------------------------------------------------------------------------------------------------------
// The layers

// out = or += w x, where w is a matrix of O rows and I columns, for P positions
void linear(vec* out, const float* w, vec* x, int O, int I, int P, bool add = false) {
    product(Features{out, O}, Weights{w, I}, Features{x, I}, O, P, I, add);
}

void linear_backward(vec* d_x, float* d_w, vec* d_out, const float* w, vec* x, int O, int I, int P) {
    product(View<float, true>{d_w, I}, Features{d_out, O}, Features{x, I}.transposed(), O, I, P, true);
    product(Features{d_x, I}, Weights{w, I}.transposed(), Features{d_out, O}, I, P, O);
}

// A LayerNorm's output w * y, and for its gradient y, 1 / standard deviation, and room for that of w, lane by lane
struct Norm { vec *out, *y, *rstd, *d_w; };

void normalize(const vec* x, const float* w, const Norm& norm, int P, int C) {
    for (int p = 0; p < P; p++, x += C) {
        vec *out = norm.out + p * C, *y = norm.y + p * C, mean = {}, var = {};
        for (int c = 0; c < C; c++) mean += x[c];
        mean *= 1.0f / C;
        for (int c = 0; c < C; c++) {
            y[c] = x[c] - mean;
            var += y[c] * y[c];
        }
        vec deviation = var * (1.0f / C) + 1e-5f;
        for (int lane = 0; lane < LANES; lane++) deviation[lane] = std::sqrt(deviation[lane]);
        norm.rstd[p] = 1.0f / deviation;
        for (int c = 0; c < C; c++) {
            y[c] *= norm.rstd[p];
            out[c] = w[c] * y[c];
        }
    }
}

// d_w += d_out * y, summed over positions, and d_x = or += (d_y - mean(d_y) - y mean(d_y * y)) / standard deviation,
// where d_y = w * d_out, and the means are over the features
void normalize_backward(vec* d_x, float* d_w, const vec* d_out, const float* w, const Norm& norm, int P, int C,
                        bool add) {
    vec* __restrict sum = norm.d_w;  // else g++ reads w again after each write to it
    std::fill_n(sum, C, vec{});
    for (int p = 0; p < P; p++, d_x += C, d_out += C) {
        const vec* y = norm.y + p * C;
        vec mean = {}, dot = {};
        for (int c = 0; c < C; c++) {
            const vec d_out_y = d_out[c] * y[c];
            sum[c] += d_out_y;
            mean += w[c] * d_out[c];
            dot += w[c] * d_out_y;
        }
        mean *= 1.0f / C;
        dot *= 1.0f / C;
        for (int c = 0; c < C; c++) put(d_x[c], (w[c] * d_out[c] - mean - y[c] * dot) * norm.rstd[p], add);
    }
    for (int c = 0; c < C; c++) put(d_w[c], sum[c], true);
}

void attend(const Shape& s, vec* qkv, vec* attention, vec* y) {
    const int T = s.T, C = s.C, size = C / s.H;
    const float scale = 1.0f / std::sqrt((float)size);
    for (int window = 0; window < s.W(); window++)
        for (int head = 0; head < s.H; head++) {
            const Features q{qkv + window * T * 3 * C + head * size, 3 * C}, k = q.at(C, 0), v = q.at(2 * C, 0);
            const Features y_head{y + window * T * C + head * size, C};
            const View<vec, true> att{attention + (window * s.H + head) * T * T, T};
            product(att, q.transposed(), k, T, T, size, false, LOWER_OUT);
            for (int t = 0; t < T; t++) {
                const vec factor = 1.0f / exp_all(&att(t, 0), t + 1, scale).total;
                for (int u = 0; u < T; u++) att(t, u) = u <= t ? att(t, u) * factor : vec{};
            }
            product(y_head.transposed(), att, v.transposed(), T, size, T, false, LOWER_A);
        }
}

void attend_backward(const Shape& s, vec* qkv, vec* attention, vec* d_y, vec* d_qkv, vec* d_attention) {
    const int T = s.T, C = s.C, size = C / s.H;
    const float scale = 1.0f / std::sqrt((float)size);
    for (int window = 0; window < s.W(); window++)
        for (int head = 0; head < s.H; head++) {
            const int offset = window * T * 3 * C + head * size;
            const Features q{qkv + offset, 3 * C}, k = q.at(C, 0), v = q.at(2 * C, 0);
            const Features d_q{d_qkv + offset, 3 * C}, d_k = d_q.at(C, 0), d_v = d_q.at(2 * C, 0);
            const Features d_head{d_y + window * T * C + head * size, C};
            const View<vec, true> att{attention + (window * s.H + head) * T * T, T}, d_att{d_attention, T};
            product(d_att, d_head.transposed(), v, T, T, size, false, LOWER_OUT);
            product(d_v.transposed(), att.transposed(), d_head.transposed(), T, size, T, false, UPPER_A);
            for (int t = 0; t < T; t++) {
                vec dot = {};
                for (int u = 0; u <= t; u++) dot += att(t, u) * d_att(t, u);
                for (int u = 0; u < T; u++) d_att(t, u) = u <= t ? att(t, u) * (d_att(t, u) - dot) * scale : vec{};
            }
            product(d_q.transposed(), d_att, k.transposed(), T, size, T, false, LOWER_A);
            product(d_k.transposed(), d_att.transposed(), q.transposed(), T, size, T, false, UPPER_A);
        }
}

}  // namespace
