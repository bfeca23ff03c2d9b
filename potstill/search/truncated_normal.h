// The normal distribution cut off outside an interval, in logarithms: a kernel whose centre lies a hundred widths away
// from the interval still has a density there.
#pragma once

namespace potstill {

double log_ndtr(double x);  // log Φ(x)

// log(Φ(b) − Φ(a)), a <= b, exact in either tail.
double log_gauss_mass(double a, double b);

// The point x of [a, b] with Φ(x) = Φ(a) + quantile · (Φ(b) − Φ(a)).
double truncated_normal_quantile(double quantile, double a, double b);

}  // namespace potstill
