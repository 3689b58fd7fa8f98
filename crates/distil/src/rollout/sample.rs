//! One token from one row of logits: temperature, then top-k, then top-p, then a draw.
//!
//! The log-probability returned is the drawn token's under the distribution it was drawn from,
//! after truncation and renormalisation: what an importance ratio has to divide by.

use distil_kernels::math::{argmax, exp_minus, log_sum_exp, max, sum, sum_of_exp};

use crate::config::Sampling;

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// Its id.
    pub token: u32,
    /// Its log-probability in nats, 0 for a greedy choice; NaN if the logits are no numbers.
    pub logprob: f32,
}

/// Draws from `logits` (overwritten) with one uniform number in [0, 1).
///
/// Temperature 0 (below 10⁻⁶) takes the largest logit, the first of equals.
pub fn draw(logits: &mut [f32], sampling: &Sampling, uniform: f64) -> Drawn {
    // Below this, dividing by the temperature would overflow what it makes sharp already.
    if sampling.temperature < 1e-6 {
        let token = argmax(logits);
        let finite = logits.get(token).is_some_and(|z| z.is_finite());
        return Drawn {
            token: token as u32,
            logprob: if finite { 0.0 } else { f32::NAN },
        };
    }
    if sampling.temperature != 1.0 {
        let inverse = (1.0 / sampling.temperature) as f32;
        for z in logits.iter_mut() {
            *z *= inverse;
        }
    }
    let top_k = match sampling.top_k {
        0 => logits.len(),
        k => k.min(logits.len()),
    };
    if top_k == logits.len() && sampling.top_p >= 1.0 {
        return draw_from_all(logits, uniform);
    }
    let candidates = match top_k < logits.len() {
        true => {
            let mut candidates = largest(logits, top_k);
            let total = total_weight(logits, &candidates);
            cut(logits, &mut candidates, sampling.top_p * total);
            candidates
        }
        false => nucleus(logits, sampling.top_p),
    };
    let total = total_weight(logits, &candidates);
    let mut rest = uniform * total;
    let weight = weights(logits, &candidates);
    let chosen = candidates.iter().copied().find(|&id| {
        rest -= weight(id);
        rest < 0.0
    });
    let token = chosen.or(candidates.last().copied()).unwrap_or(0);
    Drawn {
        token,
        logprob: (weight(token) / total).ln() as f32,
    }
}

/// e^(z − largest z) of a token; `candidates` begin with the largest.
fn weights<'a>(logits: &'a [f32], candidates: &[u32]) -> impl Fn(u32) -> f64 + use<'a> {
    let largest = candidates.first().map_or(0.0, |&id| logits[id as usize]);
    move |id| f64::from(logits[id as usize] - largest).exp()
}

fn total_weight(logits: &[f32], candidates: &[u32]) -> f64 {
    let weight = weights(logits, candidates);
    candidates.iter().map(|&id| weight(id)).sum()
}

/// Leaves the first candidates whose weights reach `mass`, and says whether they do. The likeliest
/// is always among them.
fn cut(logits: &[f32], candidates: &mut Vec<u32>, mass: f64) -> bool {
    let weight = weights(logits, candidates);
    let mut sum = 0.0;
    let last = candidates.iter().position(|&id| {
        sum += weight(id);
        sum >= mass
    });
    candidates.truncate(last.map_or(candidates.len(), |last| last + 1));
    last.is_some()
}

/// The likeliest tokens that together reach the probability `top_p`, likeliest first.
fn nucleus(logits: &[f32], top_p: f64) -> Vec<u32> {
    let shift = max(logits);
    let total = logits
        .chunks(BLOCK)
        .map(|block| f64::from(sum_of_exp(block, shift)))
        .sum::<f64>();
    // Most often few tokens are enough, and sorting all of them is not needed.
    let mut count = 256;
    loop {
        let mut candidates = largest(logits, count);
        let reached = cut(logits, &mut candidates, top_p * total);
        if reached || count >= logits.len() {
            return candidates;
        }
        count *= 8;
    }
}

/// The `count` largest logits' tokens, largest first; equal logits by id, so that the cut does not
/// depend on how they are found.
fn largest(logits: &[f32], count: usize) -> Vec<u32> {
    let count = count.min(logits.len());
    let order = |a: &u32, b: &u32| {
        let (a, b) = (*a as usize, *b as usize);
        logits[b].total_cmp(&logits[a]).then(a.cmp(&b))
    };
    // Of `count` blocks that each hold something as large as a bound, that many tokens are not
    // below it: what is below it cannot be among the largest.
    let block = (logits.len() / (4 * count).max(1)).clamp(1, 64);
    let mut maxima: Vec<f32> = logits.chunks(block).map(max).collect();
    let mut candidates: Vec<u32> = match maxima.len() > count && count > 0 {
        true => {
            let (_, bound, _) = maxima.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
            let bound = *bound;
            let all = logits.iter().zip(0..);
            all.filter(|(z, _)| **z >= bound)
                .map(|(_, id)| id)
                .collect()
        }
        false => (0..logits.len() as u32).collect(),
    };
    candidates.sort_unstable_by(order);
    candidates.truncate(count);
    candidates
}

/// Probabilities that are summed before the sum is compared with anything.
const BLOCK: usize = 1024;

/// Without truncation nothing has to be ordered: walk the probabilities, block by block.
fn draw_from_all(logits: &mut [f32], uniform: f64) -> Drawn {
    let lse = log_sum_exp(logits);
    exp_minus(logits, lse);
    // Summed twice rather than kept.
    let probabilities = &*logits;
    let sums = || {
        probabilities
            .chunks(BLOCK)
            .map(|block| f64::from(sum(block)))
    };
    let mut rest = uniform * sums().sum::<f64>();
    let block = sums().position(|sum| {
        let here = rest < sum;
        if !here {
            rest -= sum;
        }
        here
    });
    let chosen = block.map(|block| {
        let start = block * BLOCK;
        let block = &logits[start..(start + BLOCK).min(logits.len())];
        let within = block.iter().position(|&p| {
            rest -= f64::from(p);
            rest < 0.0
        });
        // A block's sum is rounded: the last bit of it may lie behind its last token.
        start + within.unwrap_or(block.len() - 1)
    });
    let token = chosen.unwrap_or_else(|| argmax(logits));
    Drawn {
        token: token as u32,
        logprob: logits[token].ln(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, -1.0, 0.5];

    fn sampling(temperature: f64, top_k: usize, top_p: f64) -> Sampling {
        Sampling {
            temperature,
            top_k,
            top_p,
        }
    }

    /// More logits than one block of any kind holds, many of them equal.
    fn many() -> Vec<f32> {
        let numbers = (0..5000_u32).map(|i| i.wrapping_mul(7919) % 1201);
        numbers.map(|x| x as f32 / 100.0).collect()
    }

    /// All tokens, likeliest first, equals by id.
    fn sorted(logits: &[f32]) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        ids.sort_by(|&a, &b| {
            let (za, zb) = (logits[a as usize], logits[b as usize]);
            zb.total_cmp(&za).then(a.cmp(&b))
        });
        ids
    }

    #[test]
    fn the_largest_of_many_are_the_first_of_a_full_sort() {
        let logits = many();
        for count in [1, 3, 40, 300, 1250, 4999, 5000] {
            assert_eq!(largest(&logits, count), sorted(&logits)[..count], "{count}");
        }
    }

    #[test]
    fn the_nucleus_of_many_is_the_smallest_set_that_reaches_its_mass() {
        let logits = many();
        let all = sorted(&logits);
        let weight = |id: u32| f64::from(logits[id as usize]).exp();
        let total: f64 = all.iter().map(|&id| weight(id)).sum();
        for top_p in [0.01, 0.5, 0.9, 0.9999] {
            let kept = nucleus(&logits, top_p);
            assert_eq!(kept, all[..kept.len()], "{top_p}");
            let mass: f64 = kept.iter().map(|&id| weight(id)).sum::<f64>() / total;
            let last = weight(kept[kept.len() - 1]) / total;
            assert!(
                mass > top_p - 1e-6 && mass - last < top_p + 1e-6,
                "{top_p}: {mass}"
            );
        }
    }

    /// The token drawn is the one whose share of [0, 1) the uniform number is in.
    #[test]
    fn walking_many_blocks_ends_where_the_cumulative_probability_does() {
        let logits = many();
        let lse = f64::from(log_sum_exp(&logits));
        let mut reached = vec![0.0];
        for &z in &logits {
            reached.push(reached[reached.len() - 1] + (f64::from(z) - lse).exp());
        }
        for step in 0..500 {
            let uniform = f64::from(step) / 500.0;
            let drawn = draw(&mut logits.clone(), &sampling(1.0, 0, 1.0), uniform);
            let token = drawn.token as usize;
            let (before, behind) = (reached[token], reached[token + 1]);
            assert!(
                before < uniform + 1e-5 && uniform - 1e-5 < behind,
                "{uniform}: {token}, {before} to {behind}"
            );
        }
    }

    /// The exact distribution, by the definition, in f64.
    fn expected(s: &Sampling) -> Vec<f64> {
        let mut p: Vec<f64> = LOGITS
            .iter()
            .map(|&z| (f64::from(z) / s.temperature).exp())
            .collect();
        let mut order: Vec<usize> = (0..p.len()).collect();
        order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
        let kept = if s.top_k == 0 { 5 } else { s.top_k };
        let total: f64 = order[..kept].iter().map(|&i| p[i]).sum();
        let mut mass = 0.0;
        let mut keep = Vec::new();
        for &i in &order[..kept] {
            keep.push(i);
            mass += p[i] / total;
            if mass >= s.top_p {
                break;
            }
        }
        let total: f64 = keep.iter().map(|&i| p[i]).sum();
        for (i, p) in p.iter_mut().enumerate() {
            *p = if keep.contains(&i) { *p / total } else { 0.0 };
        }
        p
    }

    /// Uniform numbers on a fine grid visit every token in proportion to its probability, so the
    /// sampler's distribution is found by counting, without chance.
    #[test]
    fn the_distribution_is_the_one_defined() {
        for s in [
            sampling(1.0, 0, 1.0),
            sampling(0.7, 0, 1.0),
            sampling(1.0, 2, 1.0),
            sampling(1.0, 0, 0.8),
            sampling(2.0, 4, 0.9),
            sampling(1.0, 0, 1e-9),
        ] {
            let want = expected(&s);
            let mut counts = [0.0; 5];
            let grid = 100_000;
            for i in 0..grid {
                let uniform = (f64::from(i) + 0.5) / f64::from(grid);
                let drawn = draw(&mut LOGITS.clone(), &s, uniform);
                let p = want[drawn.token as usize];
                assert!((f64::from(drawn.logprob) - p.ln()).abs() < 1e-5, "{s:?}");
                counts[drawn.token as usize] += 1.0 / f64::from(grid);
            }
            for (count, want) in counts.iter().zip(&want) {
                assert!(
                    (count - want).abs() < 3e-5,
                    "{s:?}: {counts:?} against {want:?}"
                );
            }
        }
    }

    #[test]
    fn temperature_zero_is_greedy() {
        let drawn = draw(&mut LOGITS.clone(), &sampling(0.0, 0, 1.0), 0.99);
        assert_eq!(
            drawn,
            Drawn {
                token: 1,
                logprob: 0.0
            }
        );
    }

    #[test]
    fn logits_that_are_no_numbers_are_noticed() {
        for s in [
            sampling(0.0, 0, 1.0),
            sampling(1.0, 0, 1.0),
            sampling(1.0, 3, 1.0),
            sampling(0.5, 0, 0.9),
        ] {
            assert!(draw(&mut [f32::NAN; 5], &s, 0.3).logprob.is_nan(), "{s:?}");
        }
    }

    #[test]
    fn the_ends_of_the_uniform_interval_are_tokens() {
        for uniform in [0.0, 1.0 - 1e-16] {
            for s in [sampling(1.0, 0, 1.0), sampling(1.0, 3, 0.9)] {
                assert!((draw(&mut LOGITS.clone(), &s, uniform).token as usize) < 5);
            }
        }
    }
}
