/* math.h: exp, log, erf, tanh and the activations over the vocabulary. Polynomials are our own minimax fits
 * of the relative error (Lawson's reweighted least squares), each one degree past what fp32 can show, so
 * that rounding and not the fit is the error: about 1 ulp for exp and log, 2 for erf and tanh. libm is not
 * used, because its bits differ between machines. */
#ifndef SDX_VEC_MATH_H
#define SDX_VEC_MATH_H

V_INLINE vf v_relu(vf x) { return v_max(v_zero(), x); }

/* c[0] + c[1] x + ... + c[n-1] x^(n-1), by Horner. */
V_INLINE vf v_poly(vf x, const float *c, const int n)
{
    vf y = v_set1(c[n - 1]);
    V_UNROLL
    for (int i = n - 2; i >= 0; i--) y = v_fma(y, x, v_set1(c[i]));
    return y;
}
#define V_POLY(x, ...)                                                                                         \
    v_poly((x), (const float[]){__VA_ARGS__}, (int)(sizeof((const float[]){__VA_ARGS__}) / sizeof(float)))

/* e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2)/2 and ln 2 in two parts (Cody & Waite). The bounds lie
 * where the result is already 0 or infinite. */
V_INLINE vf v_exp(vf x)
{
    x = v_max(v_set1(-104.0f), v_min(v_set1(89.0f), x));
    vf n = v_round(v_mul(x, v_set1(1.44269504f)));
    vf r = v_fnma(n, v_set1(-1.90465430e-9f), v_fnma(n, v_set1(0.693147182f), x));
    vf p = V_POLY(r, 4.999999404e-01f, 1.666651964e-01f, 4.166839272e-02f, 8.368780836e-03f, 1.381446724e-03f);
    return v_ldexp(v_add(v_fma(v_mul(r, r), p, r), v_set1(1.0f)), n);
}

/* log of m = 1 + f: f - f^2/2 + f^3 P(f). */
V_INLINE vf v_log_near_1(vf f, vf e)
{
    vf p = V_POLY(f, 3.333331347e-01f, -2.500000894e-01f, 2.000211924e-01f, -1.666799635e-01f, 1.421955228e-01f,
                  -1.240558922e-01f, 1.188816205e-01f, -1.167565212e-01f, 6.746640056e-02f);
    vf ff = v_mul(f, f);
    vf y = v_fma(v_mul(ff, f), p, v_mul(e, v_set1(-2.12194440e-4f))); /* ln 2 = 0.693359375 - 2.12...e-4 */
    y = v_fnma(v_set1(0.5f), ff, y);
    return v_fma(e, v_set1(0.693359375f), v_add(f, y));
}

/* 0 gives -inf, what is below it NaN; +inf and NaN stay. */
V_INLINE vf v_log_special(vf x, vf y)
{
    const vf inf = v_set1(INFINITY);
    y = v_select(v_lt(x, inf), y, x);
    y = v_select(v_lt(v_zero(), x), y, v_neg(inf));
    y = v_select(v_lt(x, v_zero()), v_set1(NAN), y);
    return v_select(v_isnan(x), x, y);
}

V_INLINE vf v_log(vf x)
{
    vf e, m = v_frexp(x, &e);
    return v_log_special(x, v_log_near_1(v_sub(m, v_set1(1.0f)), e));
}

/* log(u) + c/u with u = 1 + x rounded and c what the rounding lost (Kahan). */
V_INLINE vf v_log1p(vf x)
{
    const vf one = v_set1(1.0f);
    vf u = v_add(one, x), e, m = v_frexp(u, &e);
    vf lost = v_select(v_lt(x, one), v_sub(x, v_sub(u, one)), v_sub(one, v_sub(u, x)));
    vf y = v_add(v_log_near_1(v_sub(m, one), e), v_div(lost, u));
    return v_select(v_lt(v_abs(x), v_set1(0x1p-24f)), x, v_log_special(u, y));
}

/* erfc(a/sqrt(2))/2 for a in [0, 15]: the upper tail of the normal distribution, to an absolute error of
 * 5e-8. t P(t) e^(-a^2/2) with t = 1/(1 + a/4), fitted on [0, 6] with that weight; beyond, the exponential
 * hides the rest. The exponential is 2^g 2^-n with s = a sqrt(log2(e)/2), n = round(s^2) and g = n - s^2
 * from one fma. */
V_INLINE vf v_half_erfc(vf a)
{
    vf t = v_div(v_set1(1.0f), v_fma(a, v_set1(0.25f), v_set1(1.0f)));
    vf p = V_POLY(t, 1.005603075e-01f, 9.947903454e-02f, 6.321999431e-02f, 2.196718454e-01f, -2.119421810e-01f,
                  3.154633045e-01f, -8.645230532e-02f);
    vf s = v_mul(a, v_set1(0.849321800f)), n = v_round(v_mul(s, s)), g = v_fnma(s, s, n);
    vf e = V_POLY(g, 1.0f, 6.931471825e-01f, 2.402264774e-01f, 5.550332367e-02f, 9.618437849e-03f,
                  1.339890063e-03f, 1.535334159e-04f);
    return v_mul(v_mul(p, t), v_ldexp(e, v_neg(n)));
}

/* An odd polynomial near 0, 1 - erfc elsewhere. */
V_INLINE vf v_erf(vf x)
{
    vf w = v_mul(x, x), a = v_abs(x);
    vf p = V_POLY(w, 1.128379226e+00f, -3.761263490e-01f, 1.128371507e-01f, -2.686050907e-02f, 5.203858949e-03f,
                  -8.175639668e-04f, 8.513104694e-05f);
    vf tail = v_half_erfc(v_min(v_set1(15.0f), v_mul(a, v_set1(1.41421356f))));
    vf far = v_copysign(v_fnma(v_set1(2.0f), tail, v_set1(1.0f)), x);
    return v_select(v_lt(a, v_set1(0.9f)), v_mul(x, p), far);
}

/* An odd polynomial near 0, 1 - 2/(e^2x + 1) elsewhere. */
V_INLINE vf v_tanh(vf x)
{
    vf w = v_mul(x, x), a = v_abs(x);
    vf p =
        V_POLY(w, -3.333329856e-01f, 1.333192438e-01f, -5.378383026e-02f, 2.079597116e-02f, -5.895158276e-03f);
    vf near = v_fma(v_mul(x, w), p, x);
    vf e = v_exp(v_add(a, a));
    vf far = v_sub(v_set1(1.0f), v_div(v_set1(2.0f), v_add(e, v_set1(1.0f))));
    return v_select(v_lt(a, v_set1(0.6f)), near, v_copysign(far, x));
}

/* 1 / (1 + e^-x) */
V_INLINE vf v_sigmoid(vf x) { return v_div(v_set1(1.0f), v_add(v_set1(1.0f), v_exp(v_neg(x)))); }

/* x * Phi(x) = max(x, 0) - |x| * (upper tail at |x|): the tail is small where cancellation would hurt, so
 * that the error stays within 1.5 ulp of the result + 6e-8. From |x| = 15 on the tail is 0. */
V_INLINE vf v_gelu(vf x)
{
    vf a = v_min(v_set1(15.0f), v_abs(x));
    return v_fnma(a, v_half_erfc(a), v_relu(x));
}

/* x/2 * (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
V_INLINE vf v_gelu_tanh(vf x)
{
    vf u2 = v_mul(x, v_fma(v_mul(x, x), v_set1(-0.0713548163f), v_set1(-1.59576912f)));
    return v_div(x, v_add(v_set1(1.0f), v_exp(u2)));
}

#endif
