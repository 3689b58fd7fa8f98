//! All roofs of the machine: matrix products of each precision and reading memory, each with all
//! threads and with one.
//!
//! A product is that of a linear layer as networks compute it, from f32 numbers to f32 numbers: in
//! bf16, rounding them is part of it. The best of several shapes and tries counts.

use distil_kernels::{Precision, instruction_set};
use serde::Serialize;

use super::roof::{matrix_rate, read_rate};
use crate::error::{Error, Result};

/// What this machine can do; as JSON, the line of `distil bench roof --json`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Roofs {
    /// `roof`.
    pub bench: &'static str,
    /// How many all threads are.
    pub threads: usize,
    /// Matrix products in f32.
    pub f32: MatrixRoof,
    /// Matrix products in bf16.
    pub bf16: MatrixRoof,
    /// Reading memory.
    pub memory: MemoryRoof,
}

/// Rates of matrix products, in 10⁹ floating-point operations a second.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MatrixRoof {
    /// The processor's instructions that compute them.
    pub instructions: &'static str,
    /// With all threads.
    pub gflops: f64,
    /// With one thread.
    pub gflops_one_thread: f64,
}

/// Rates at which memory is read, in 10⁹ bytes a second.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MemoryRoof {
    /// With all threads.
    pub gigabytes_per_second: f64,
    /// With one thread.
    pub gigabytes_per_second_one_thread: f64,
}

/// Measures all roofs, in a few seconds.
///
/// # Errors
/// The system does not let a thread start.
pub fn roofs() -> Result<Roofs> {
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let alone = alone.map_err(|error| Error::Mismatch {
        what: format!("no thread can be started: {error}"),
        fix: "end other programs, or raise the limit of threads (`ulimit -u`)".into(),
    })?;
    let matrix = |precision| MatrixRoof {
        instructions: instruction_set(precision),
        gflops: matrix_rate(precision),
        gflops_one_thread: alone.install(|| matrix_rate(precision)),
    };
    Ok(Roofs {
        bench: "roof",
        threads: rayon::current_num_threads(),
        f32: matrix(Precision::F32),
        bf16: matrix(Precision::Bf16),
        memory: MemoryRoof {
            gigabytes_per_second: read_rate() / 1e9,
            gigabytes_per_second_one_thread: alone.install(read_rate) / 1e9,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_roof_is_measured() {
        let json = serde_json::to_value(roofs().unwrap()).unwrap();
        for precision in ["f32", "bf16"] {
            let roof = &json[precision];
            assert!(!roof["instructions"].as_str().unwrap().is_empty());
            for rate in ["gflops", "gflops_one_thread"] {
                assert!(roof[rate].as_f64().unwrap() > 0.0, "{precision} {rate}");
            }
        }
        for rate in ["gigabytes_per_second", "gigabytes_per_second_one_thread"] {
            assert!(json["memory"][rate].as_f64().unwrap() > 0.0, "{rate}");
        }
    }
}
