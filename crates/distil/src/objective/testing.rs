//! What the objectives' tests share: the golden file of `oracles/kd_losses.py` and differences.

use std::sync::Arc;

use distil_kernels::RowObjective;
use serde_json::Value;

/// Values and gradients by torch in f64.
pub(crate) fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/losses.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Values and gradients of `oracles/preference_losses.py`, by torch in f64.
pub(crate) fn preference_golden() -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/preference.json"
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The value at each position and the gradient of their mean, against those of `case`; the value
/// only if `constant` is not set.
pub(crate) fn equals_case(
    objective: &dyn RowObjective,
    golden: &Value,
    case: &Value,
    constant: bool,
) {
    let (student, teacher) = (
        rows(&golden["student_logits"]),
        rows(&golden["teacher_logits"]),
    );
    let gradients = rows(&case["gradient"]);
    for (i, (s, t)) in student.iter().zip(&teacher).enumerate() {
        let (mut s, mut t) = (s.clone(), t.clone());
        let value = objective.row(i, &mut s, Some(&mut t), true).values[0];
        let want = case["per_position"][i].as_f64().unwrap();
        assert!(
            constant || (value - want).abs() < 1e-6 * want.max(1.0),
            "{value} {want}"
        );
        for (got, want) in s.iter().zip(&gradients[i]) {
            let got = got / student.len() as f32;
            assert!(
                (got - want).abs() < 1e-6 * want.abs().max(0.1),
                "{got} {want}"
            );
        }
    }
}

pub(crate) fn rows(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).unwrap()
}

pub(crate) fn targets(golden: &Value) -> Arc<[u32]> {
    serde_json::from_value::<Vec<u32>>(golden["targets"].clone())
        .unwrap()
        .into()
}

/// Value at each position and gradient of the mean, against the golden ones of `name`.
pub(crate) fn equals_golden(objective: &dyn RowObjective, golden: &Value, name: &str) {
    let (student, teacher) = (
        rows(&golden["student_logits"]),
        rows(&golden["teacher_logits"]),
    );
    let gradients = rows(&golden[name]["gradient"]);
    let count = student.len() as f32;
    for (i, (s, t)) in student.iter().zip(&teacher).enumerate() {
        let (mut s, mut t) = (s.clone(), t.clone());
        let value = objective.row(i, &mut s, Some(&mut t), true).values[0];
        let want = golden[name]["per_position"][i].as_f64().unwrap();
        assert!(
            (value - want).abs() < 1e-6 * want.max(1.0),
            "{name} {i}: {value} against {want}"
        );
        for (got, want) in s.iter().zip(&gradients[i]) {
            assert!((got / count - want).abs() < 1e-7, "{name} {i}: {got}");
        }
    }
}

/// The gradient against central differences of the value, on every logit.
pub(crate) fn check_gradient(objective: &dyn RowObjective, golden: &Value, step: f32) {
    let (student, teacher) = (
        rows(&golden["student_logits"]),
        rows(&golden["teacher_logits"]),
    );
    for (i, (s, t)) in student.iter().zip(&teacher).enumerate() {
        let value = |s: &[f32]| {
            let (mut s, mut t) = (s.to_vec(), t.clone());
            objective.row(i, &mut s, Some(&mut t), false).values[0]
        };
        let (mut gradient, mut t) = (s.clone(), t.clone());
        objective.row(i, &mut gradient, Some(&mut t), true);
        for (entry, &got) in gradient.iter().enumerate() {
            let (mut up, mut down) = (s.clone(), s.clone());
            up[entry] += step;
            down[entry] -= step;
            let slope = (value(&up) - value(&down)) / f64::from(up[entry] - down[entry]);
            assert!(
                (slope - f64::from(got)).abs() < 3e-4,
                "row {i} entry {entry}: {slope} {got}"
            );
        }
    }
}
