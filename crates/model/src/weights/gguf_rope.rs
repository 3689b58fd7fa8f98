//! Llama 3's rotary scaling, recovered from the factors that llama.cpp's converter stores.
//!
//! With wavelength λ = 2π·θ^(2i/d) of pair i, original context c, factor f, and low and high frequency
//! factors l and h, the pair's frequency is divided by
//!
//! - 1 where λ < c/h;
//! - f where λ > c/l;
//! - 1 / ((1 − s)/f + s) between, with s = (c/λ − l) / (h − l).
//!
//! Source: `rope_type` `llama3` of transformers (`modeling_rope_utils.py`).

use serde_json::{Value, json};

/// Original contexts of models with this scaling: Llama's own first.
const CONTEXTS: [f64; 6] = [8192.0, 4096.0, 16384.0, 32768.0, 2048.0, 131072.0];
/// Low and high frequency factors of all of them.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
/// Largest relative difference between a stored factor (f32) and the formula.
const TOLERANCE: f64 = 1e-5;

/// `rope_scaling` with parameters that give exactly `factors` (one a pair); null where all of them are 1.
/// None if no known parameters do.
pub(crate) fn llama3_scaling(factors: &[f32], head_dim: u64, theta: f64) -> Option<Value> {
    if factors.len() as u64 != head_dim / 2 {
        return None;
    }
    // The last pair has the longest wave, and is divided by the whole factor.
    let factor = f64::from(*factors.last()?);
    if factors.iter().all(|factor| *factor == 1.0) {
        return Some(Value::Null);
    }
    let agrees = |context: &&f64| {
        factors.iter().enumerate().all(|(pair, stored)| {
            let expected = divisor(pair, head_dim, theta, factor, **context);
            (f64::from(*stored) - expected).abs() <= TOLERANCE * expected
        })
    };
    let context = CONTEXTS.iter().find(agrees)?;
    Some(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": *context as u64,
    }))
}

/// What the frequency of `pair` is divided by.
fn divisor(pair: usize, head_dim: u64, theta: f64, factor: f64, context: f64) -> f64 {
    let wavelength = std::f64::consts::TAU * theta.powf(2.0 * pair as f64 / head_dim as f64);
    if wavelength < context / HIGH {
        1.0
    } else if wavelength > context / LOW {
        factor
    } else {
        let smooth = (context / wavelength - LOW) / (HIGH - LOW);
        1.0 / ((1.0 - smooth) / factor + smooth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // llama.cpp's converter in float32 (torch 2.15.0) for heads of 16 and θ = 500 000.
    const LLAMA_3_1: [f32; 8] = [1.0, 1.0, 1.0, 1.0, 2.69453, 8.0, 8.0, 8.0];
    const LLAMA_3_2: [f32; 8] = [1.0, 1.0, 1.0, 1.0, 3.2922628, 32.0, 32.0, 32.0];

    #[test]
    fn llamas_parameters_are_recovered() {
        for (factors, factor) in [(LLAMA_3_1, 8.0), (LLAMA_3_2, 32.0)] {
            let expected = json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            });
            assert_eq!(llama3_scaling(&factors, 16, 500000.0), Some(expected));
        }
        assert_eq!(llama3_scaling(&[1.0; 8], 16, 500000.0), Some(Value::Null));
    }

    #[test]
    fn any_other_factors_are_refused() {
        for changed in 0..8 {
            let mut factors = LLAMA_3_1;
            factors[changed] *= 1.0001;
            assert_eq!(
                llama3_scaling(&factors, 16, 500000.0),
                None,
                "factor {changed}"
            );
        }
        assert_eq!(llama3_scaling(&LLAMA_3_1, 16, 10000.0), None);
        assert_eq!(llama3_scaling(&LLAMA_3_1, 32, 500000.0), None);
        assert_eq!(llama3_scaling(&[f32::NAN; 8], 16, 500000.0), None);
        assert_eq!(llama3_scaling(&[], 0, 500000.0), None);
    }
}
