//! A distillation problem small enough to know everything about it.
//!
//! The reward is linear, r*(x, y) = θ*·φ(x, y). A policy matters only through its mean features
//! ψ(π) = E_x E_{y~π} φ(x, y): the gap to the teacher under a reward θ is θ·(ψ(teacher) − ψ(π)).
//! The student can only mix two fixed policies, π_w = (1−w)·π₀ + w·π₁, and the teacher is none of
//! these mixtures.

/// Features.
pub(crate) const D: usize = 3;
const PROMPTS: usize = 3;
const RESPONSES: usize = 4;

/// A vector of features.
pub(crate) type Vector = [f64; D];

pub(crate) fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(crate) fn plus(a: &Vector, by: f64, b: &Vector) -> Vector {
    std::array::from_fn(|i| a[i] + by * b[i])
}

/// A seeded stream of random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((self.uniform() * count as f64) as usize).min(count - 1)
    }
}

/// Probabilities of the responses to each prompt.
type Policy = [[f64; RESPONSES]; PROMPTS];

/// Prompts, responses, two models, and the reward that the preferences follow.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    features: [[Vector; RESPONSES]; PROMPTS],
    teacher: Policy,
    /// π₀ and π₁.
    student: [Policy; 2],
    /// θ*.
    pub(crate) reward: Vector,
    /// ψ(teacher) − ψ(π₀).
    distance: Vector,
    /// ψ(π₁) − ψ(π₀).
    direction: Vector,
}

impl Problem {
    /// The problem in which π₁ earns `gap` more than π₀. All else is the same for every gap.
    pub(crate) fn new(gap: f64) -> Self {
        let mut random = Random::new(2025);
        let features: [[Vector; RESPONSES]; PROMPTS] = std::array::from_fn(|_| {
            std::array::from_fn(|_| std::array::from_fn(|_| 2.0 * random.uniform() - 1.0))
        });
        let softmax = |taste: Vector| -> Policy {
            features.map(|responses| {
                let weights = responses.map(|phi| dot(&taste, &phi).exp());
                let total: f64 = weights.iter().sum();
                weights.map(|w| w / total)
            })
        };
        let teacher = softmax([2.0, 2.0, 1.0]);
        let student = [softmax([0.5, -1.0, 1.0]), softmax([0.5, 1.0, -1.0])];
        let means = [&teacher, &student[0], &student[1]].map(|policy| {
            let mut mean = [0.0; D];
            for (responses, probabilities) in features.iter().zip(policy) {
                for (phi, p) in responses.iter().zip(probabilities) {
                    mean = plus(&mean, p / PROMPTS as f64, phi);
                }
            }
            mean
        });
        let direction = plus(&means[2], -1.0, &means[1]);
        let base = [1.0, 0.5, 0.5];
        let moved = (gap - dot(&base, &direction)) / dot(&direction, &direction);
        Self {
            features,
            teacher,
            student,
            reward: plus(&base, moved, &direction),
            distance: plus(&means[0], -1.0, &means[1]),
            direction,
        }
    }

    /// ψ(teacher) − ψ(π_w).
    pub(crate) fn behind(&self, w: f64) -> Vector {
        plus(&self.distance, -w, &self.direction)
    }

    /// ψ(π₁) − ψ(π₀).
    pub(crate) fn direction(&self) -> &Vector {
        &self.direction
    }

    /// The best mixture under the true reward.
    pub(crate) fn best(&self) -> f64 {
        f64::from(u8::from(dot(&self.reward, &self.direction) > 0.0))
    }

    /// What π_w earns less than the best mixture does, under the true reward.
    pub(crate) fn suboptimality(&self, w: f64) -> f64 {
        (self.best() - w) * dot(&self.reward, &self.direction)
    }

    /// Adds a pair to `pairs`: a prompt, a response of the teacher and one of π_w, ordered by
    /// Bradley and Terry's model of θ*.
    pub(crate) fn compare(&self, w: f64, random: &mut Random, pairs: &mut Pairs) {
        let prompt = random.below(PROMPTS);
        let student = &self.student[usize::from(random.uniform() < w)];
        let first = draw(&self.teacher[prompt], random);
        let second = draw(&student[prompt], random);
        let responses = &self.features[prompt];
        let difference = plus(&responses[first], -1.0, &responses[second]);
        let wins = random.uniform() < sigmoid(dot(&self.reward, &difference));
        pairs.add(
            (prompt * RESPONSES + first) * RESPONSES + second,
            difference,
            wins,
        );
    }
}

fn draw(probabilities: &[f64; RESPONSES], random: &mut Random) -> usize {
    let mut rest = random.uniform();
    let drawn = probabilities.iter().position(|p| {
        rest -= p;
        rest < 0.0
    });
    drawn.unwrap_or(RESPONSES - 1)
}

/// Preferences, counted by what was compared.
#[derive(Clone, Debug)]
pub(crate) struct Pairs {
    /// φ(x, y₁) − φ(x, y₀), how often the first won, and how often it lost.
    pub(crate) counts: Vec<(Vector, f64, f64)>,
}

impl Pairs {
    pub(crate) fn new() -> Self {
        let kinds = PROMPTS * RESPONSES * RESPONSES;
        Self {
            counts: vec![([0.0; D], 0.0, 0.0); kinds],
        }
    }

    fn add(&mut self, kind: usize, difference: Vector, wins: bool) {
        let (place, won, lost) = &mut self.counts[kind];
        *place = difference;
        match wins {
            true => *won += 1.0,
            false => *lost += 1.0,
        }
    }
}

pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
