//! Offline PbKD solved to rounding: maximum likelihood, the confidence set
//! { θ : L(θ) ≥ L(θ̂) − ζ }, and the policy that loses least under its worst reward,
//!   min_w max_θ θ·(ψ(teacher) − ψ(π_w)).
//!
//! L is the Bradley–Terry log-likelihood in nats with a small ridge −κ/2·‖θ‖², which bounds rewards
//! that no pair speaks of.

use super::problem::{D, Pairs, Problem, Vector, dot, plus, sigmoid};

const RIDGE: f64 = 0.05;

/// The fitted likelihood and its confidence set.
pub(crate) struct Fit<'a> {
    pairs: &'a Pairs,
    /// θ̂.
    pub(crate) estimate: Vector,
    /// L(θ̂).
    best: f64,
    /// ζ, in nats.
    zeta: f64,
}

/// The robust policy and what it was robust against.
pub(crate) struct Robust {
    /// Share of π₁.
    pub(crate) w: f64,
    /// Its worst plausible reward.
    pub(crate) worst: Vector,
}

impl<'a> Fit<'a> {
    pub(crate) fn new(pairs: &'a Pairs, zeta: f64) -> Self {
        let estimate = maximise(pairs, &[0.0; D], [0.0; D]);
        Self {
            pairs,
            estimate,
            best: likelihood(pairs, &estimate),
            zeta,
        }
    }

    /// L(θ̂) − L(θ), in nats.
    pub(crate) fn less_likely(&self, theta: &Vector) -> f64 {
        self.best - likelihood(self.pairs, theta)
    }

    pub(crate) fn contains(&self, theta: &Vector) -> bool {
        self.less_likely(theta) <= self.zeta * (1.0 + 1e-6)
    }

    /// The plausible reward with the largest θ·v: the maximiser of s·θ·v + L(θ) for the s at which
    /// it lies on the border. √(L(θ̂) − L) is nearly proportional to s.
    pub(crate) fn worst(&self, v: &Vector) -> Vector {
        let (mut s, mut theta) = (1.0, self.estimate);
        let (mut low, mut high) = (0.0, f64::INFINITY);
        for trial in 0..200 {
            theta = maximise(self.pairs, &v.map(|x| s * x), self.estimate);
            let ratio = self.less_likely(&theta) / self.zeta;
            if (ratio - 1.0).abs() < 1e-7 {
                break;
            }
            match ratio < 1.0 {
                true => low = s,
                false => high = s,
            }
            let proposed = s / ratio.max(1e-6).sqrt();
            // Where it is far from proportional the proposals circle: then the bracket is halved.
            s = match trial < 12 && proposed > low && proposed < high {
                true => proposed,
                false if high.is_finite() => 0.5 * (low + high),
                false => 2.0 * low,
            };
        }
        theta
    }

    /// The saddle point: the loss is convex in w, with slope −θ(w)·(ψ(π₁) − ψ(π₀)).
    pub(crate) fn robust(&self, problem: &Problem) -> Robust {
        let at = |w: f64| {
            let worst = self.worst(&problem.behind(w));
            (Robust { w, worst }, -dot(&worst, problem.direction()))
        };
        let (first, slope) = at(0.0);
        if slope >= 0.0 {
            return first;
        }
        let (last, slope) = at(1.0);
        if slope <= 0.0 {
            return last;
        }
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..20 {
            let middle = 0.5 * (low + high);
            match at(middle).1 < 0.0 {
                true => low = middle,
                false => high = middle,
            }
        }
        at(0.5 * (low + high)).0
    }
}

/// L(θ).
fn likelihood(pairs: &Pairs, theta: &Vector) -> f64 {
    let log_sigmoid = |x: f64| -((-x.abs()).exp().ln_1p()) + x.min(0.0);
    let sum: f64 = pairs
        .counts
        .iter()
        .filter(|(_, won, lost)| won + lost > 0.0)
        .map(|(phi, won, lost)| {
            let margin = dot(theta, phi);
            won * log_sigmoid(margin) + lost * log_sigmoid(-margin)
        })
        .sum();
    sum - 0.5 * RIDGE * dot(theta, theta)
}

/// argmax of θ·`push` + L(θ), by Newton's method with halved steps.
fn maximise(pairs: &Pairs, push: &Vector, start: Vector) -> Vector {
    let value = |theta: &Vector| dot(theta, push) + likelihood(pairs, theta);
    let (mut theta, mut current) = (start, value(&start));
    for _ in 0..100 {
        let mut gradient = plus(push, -RIDGE, &theta);
        let mut hessian = [[0.0; D]; D];
        for (i, row) in hessian.iter_mut().enumerate() {
            row[i] = RIDGE;
        }
        for (phi, won, lost) in &pairs.counts {
            let count = won + lost;
            if count == 0.0 {
                continue;
            }
            let p = sigmoid(dot(&theta, phi));
            gradient = plus(&gradient, won - count * p, phi);
            for (row, x) in hessian.iter_mut().zip(phi) {
                *row = plus(row, count * p * (1.0 - p) * x, phi);
            }
        }
        let step = solve(hessian, gradient);
        // The Newton decrement: twice what is left to gain, in nats. Below this the step is exact,
        // and its gain is lost in the rounding of the value.
        let decrement = dot(&step, &gradient);
        if decrement < 1e-7 {
            theta = plus(&theta, 1.0, &step);
            break;
        }
        let mut size = 1.0;
        let found = loop {
            let next = plus(&theta, size, &step);
            let reached = value(&next);
            if reached > current + 0.25 * size * decrement || size < 1e-9 {
                break (next, reached);
            }
            size *= 0.5;
        };
        (theta, current) = found;
    }
    theta
}

/// A positive definite system, by elimination.
fn solve(mut a: [[f64; D]; D], mut b: Vector) -> Vector {
    for i in 0..D {
        let (pivot, value) = (a[i], b[i]);
        for j in i + 1..D {
            let factor = a[j][i] / pivot[i];
            a[j] = plus(&a[j], -factor, &pivot);
            b[j] -= factor * value;
        }
    }
    for i in (0..D).rev() {
        let later: f64 = (i + 1..D).map(|j| a[i][j] * b[j]).sum();
        b[i] = (b[i] - later) / a[i][i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::super::problem::Random;
    use super::*;

    fn pairs(problem: &Problem, count: usize) -> Pairs {
        let (mut random, mut pairs) = (Random::new(3), Pairs::new());
        for _ in 0..count {
            problem.compare(0.5, &mut random, &mut pairs);
        }
        pairs
    }

    #[test]
    fn the_estimate_is_a_maximum() {
        let problem = Problem::new(0.3);
        let pairs = pairs(&problem, 300);
        let fit = Fit::new(&pairs, 3.0);
        for i in 0..D {
            for by in [-1e-3, 1e-3] {
                let mut moved = fit.estimate;
                moved[i] += by;
                assert!(fit.less_likely(&moved) > 0.0);
            }
        }
    }

    #[test]
    fn no_plausible_reward_is_worse_than_the_worst() {
        let problem = Problem::new(0.3);
        let pairs = pairs(&problem, 100);
        let fit = Fit::new(&pairs, 3.0);
        let v = problem.behind(0.4);
        let worst = fit.worst(&v);
        assert!((fit.less_likely(&worst) - 3.0).abs() < 1e-6);
        let mut random = Random::new(4);
        let mut plausible = 0;
        for _ in 0..20_000 {
            let theta = fit.estimate.map(|x| x + 3.0 * (random.uniform() - 0.5));
            if fit.contains(&theta) {
                plausible += 1;
                assert!(dot(&theta, &v) <= dot(&worst, &v) + 1e-9);
            }
        }
        assert!(plausible > 100);
    }

    #[test]
    fn no_mixture_is_safer_than_the_robust_one() {
        for gap in [-0.3, 0.02, 0.3] {
            let problem = Problem::new(gap);
            let pairs = pairs(&problem, 80);
            let fit = Fit::new(&pairs, 3.0);
            let risk = |w: f64| {
                let v = problem.behind(w);
                dot(&fit.worst(&v), &v)
            };
            let robust = fit.robust(&problem);
            let least = risk(robust.w);
            for i in 0..=50 {
                assert!(risk(f64::from(i) / 50.0) > least - 1e-6);
            }
        }
    }
}
