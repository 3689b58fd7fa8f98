//! A language small enough to enumerate: every response, every state, exact expectations and exact
//! gradients, in f64. Token 0 ends a response; at the horizon it is the only one left.

/// Tokens 0..`tokens`, responses of at most `horizon` tokens, the last always token 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mdp {
    pub(crate) tokens: usize,
    pub(crate) horizon: usize,
}

/// One response: the states it visits and the actions it takes there.
#[derive(Clone, Debug)]
pub(crate) struct Trajectory {
    pub(crate) states: Vec<usize>,
    pub(crate) actions: Vec<usize>,
}

impl Trajectory {
    pub(crate) fn steps(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.states
            .iter()
            .copied()
            .zip(self.actions.iter().copied())
    }
}

/// Logits of every state, [states][tokens].
pub(crate) type Table = Vec<Vec<f64>>;

pub(crate) fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::MIN, f64::max);
    let total: f64 = logits.iter().map(|z| (z - largest).exp()).sum();
    logits.iter().map(|z| (z - largest).exp() / total).collect()
}

impl Mdp {
    pub(crate) fn new(tokens: usize, horizon: usize) -> Self {
        Self { tokens, horizon }
    }

    /// Prefixes without token 0 of less than `horizon` tokens, shortest first.
    fn prefixes(&self) -> Vec<Vec<usize>> {
        let mut all = vec![Vec::new()];
        let mut newest = all.clone();
        for _ in 1..self.horizon {
            newest = newest
                .iter()
                .flat_map(|prefix: &Vec<usize>| {
                    (1..self.tokens).map(move |token| [&prefix[..], &[token]].concat())
                })
                .collect();
            all.extend(newest.clone());
        }
        all
    }

    pub(crate) fn states(&self) -> usize {
        self.prefixes().len()
    }

    /// Logits that are a function of the seed, about as far apart as a real model's.
    pub(crate) fn table(&self, seed: u64) -> Table {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut number = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64 * 4.0 - 2.0
        };
        (0..self.states())
            .map(|_| (0..self.tokens).map(|_| number()).collect())
            .collect()
    }

    /// Every response. A prefix of the longest length may go on with token 0 only: its
    /// probability of that is the whole of the state's.
    pub(crate) fn trajectories(&self) -> Vec<Trajectory> {
        let prefixes = self.prefixes();
        let number = |prefix: &[usize]| prefixes.iter().position(|p| p == prefix).unwrap_or(0);
        let ends = prefixes.iter().flat_map(|prefix| {
            let last = prefix.len() + 1 == self.horizon;
            let choices = if last { 1..self.tokens } else { 0..0 };
            // At the horizon every action ends the response.
            std::iter::once(0)
                .chain(choices)
                .map(|action| [&prefix[..], &[action]].concat())
                .collect::<Vec<_>>()
        });
        ends.map(|actions| Trajectory {
            states: (0..actions.len()).map(|t| number(&actions[..t])).collect(),
            actions,
        })
        .collect()
    }

    /// Probability of a response under the policy softmax(`table`).
    pub(crate) fn probability(&self, table: &Table, trajectory: &Trajectory) -> f64 {
        let steps = trajectory.steps();
        steps
            .map(|(state, action)| softmax(&table[state])[action])
            .product()
    }

    /// E over responses of `f`.
    pub(crate) fn expectation(&self, table: &Table, mut f: impl FnMut(&Trajectory) -> f64) -> f64 {
        let all = self.trajectories();
        all.iter().map(|y| self.probability(table, y) * f(y)).sum()
    }

    /// ∂ `f` / ∂ table by central differences.
    pub(crate) fn differences(&self, table: &Table, f: &dyn Fn(&Table) -> f64) -> Table {
        let mut result = table.clone();
        for state in 0..table.len() {
            for token in 0..self.tokens {
                let at = |by: f64| {
                    let mut moved = table.clone();
                    moved[state][token] += by;
                    f(&moved)
                };
                // Fourth order: the error is far below what the tests ask for.
                let h = 1e-3;
                let near = at(h) - at(-h);
                let far = at(2.0 * h) - at(-2.0 * h);
                result[state][token] = (8.0 * near - far) / (12.0 * h);
            }
        }
        result
    }

    /// E over responses of Σ_t w_t ∇ log q(a_t|s_t), the expected update of weights `w`.
    pub(crate) fn expected_score(
        &self,
        table: &Table,
        weights: impl Fn(&Trajectory) -> Vec<f64>,
    ) -> Table {
        let mut sum: Table = table.iter().map(|row| vec![0.0; row.len()]).collect();
        for y in self.trajectories() {
            let probability = self.probability(table, &y);
            for ((state, action), weight) in y.steps().zip(weights(&y)) {
                for (token, q) in softmax(&table[state]).into_iter().enumerate() {
                    let onehot = f64::from(u8::from(token == action));
                    sum[state][token] += probability * weight * (onehot - q);
                }
            }
        }
        sum
    }
}

/// Largest difference of two tables.
pub(crate) fn distance(a: &Table, b: &Table) -> f64 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn probabilities_of_all_responses_add_to_one() {
    let mdp = Mdp::new(3, 3);
    // 0, 1·, 2·: one response of one token, two of two, and twelve of three.
    assert_eq!((mdp.states(), mdp.trajectories().len()), (7, 15));
    let total = mdp.expectation(&mdp.table(3), |_| 1.0);
    assert!((total - 1.0).abs() < 1e-12);
}
