//! The output head and the loss on it, by chunks of rows.
//!
//! Logits are z = H Wᵀ with H [rows, width] and W [vocabulary, width]. A [rows, vocabulary] matrix
//! is never kept: a chunk of rows is multiplied, handed row by row to a [`RowObjective`] that
//! returns the value and overwrites the logits by their gradient, and multiplied back into
//! dH = dZ W and dW = dZᵀ H before the next chunk begins. Memory is flat in the number of rows.
//!
//! The pass runs during forward; [`attach_gradient`] hands what the hidden states get to autodiff. On devices
//! other than the CPU the products run there and the row work on the host: exact, but slower.

use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;

use crate::few_rows::{MOST_ROWS, few_rows};
use crate::host::{HostKernel, Output, View, host1, on_host, primitive, to_host, values};
use crate::matmul::{Into, Matrix, Threads, matmul};
use crate::packed::{Packed, product};
use crate::precision::Precision;
use crate::team::for_each_chunk;
use crate::weight::{PackedWeight, Weight};

/// Logits a chunk may hold (64 MiB of f32). Fewer make the products' inner dimension, the rows of a
/// chunk, too short for the traffic of the head's gradient, which every chunk adds to.
const CHUNK_LOGITS: usize = 16 << 20;

/// What an objective says of one row, or the sums over several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowTerms {
    /// The loss first, then its terms and whatever else is worth a mean, in nats.
    pub values: [f64; 4],
    /// Of each value that is a term of the loss: ‖∂ its part of the loss / ∂ logits‖², where a
    /// gradient was asked for; else 0.
    pub squares: [f64; 4],
}

impl RowTerms {
    /// Values without squares.
    pub fn of(values: [f64; 4]) -> Self {
        Self {
            values,
            squares: [0.0; 4],
        }
    }
}

impl std::ops::AddAssign for RowTerms {
    fn add_assign(&mut self, other: Self) {
        let sums = self.values.iter_mut().chain(&mut self.squares);
        for (sum, part) in sums.zip(other.values.iter().chain(&other.squares)) {
            *sum += part;
        }
    }
}

/// A loss on the logits of one position.
pub trait RowObjective: Sync {
    /// The terms of row `row`.
    ///
    /// `student` holds the logits; where `gradient` is set they are overwritten by
    /// d loss / d logits. `teacher` holds the teacher's logits of the same position if a teacher
    /// head was given, and may be overwritten.
    fn row(
        &self,
        row: usize,
        student: &mut [f32],
        teacher: Option<&mut [f32]>,
        gradient: bool,
    ) -> RowTerms;
}

/// The teacher's side of the head: its hidden states at the same positions, and its weights.
#[derive(Clone, Debug)]
pub struct TeacherHead {
    /// [rows, teacher width], untracked.
    pub hidden: Tensor<2>,
    /// [vocabulary, teacher width], untracked.
    pub weight: Weight,
}

/// What one pass over the head gives.
#[derive(Debug)]
pub struct HeadPass {
    /// Sums of the objective's terms over the rows (not scaled).
    pub terms: RowTerms,
    /// `scale` · d loss / d hidden, [rows, width], if gradients were asked.
    pub d_hidden: Option<Tensor<2>>,
    /// `scale` · d loss / d weight, [vocabulary, width], if gradients were asked.
    pub d_weight: Option<Tensor<2>>,
}

/// Value and, if `gradient`, gradients of Σ rows of `objective`; gradients are multiplied by `scale`.
///
/// Only the first `vocabulary` rows of both weights take part: vocabularies that differ by
/// padding are aligned by their common part.
///
/// # Shapes
/// `hidden` [rows, width], `weight` [≥ vocabulary, width], both untracked; plain, if `gradient`.
pub fn head_pass(
    hidden: Tensor<2>,
    weight: &Weight,
    teacher: Option<&TeacherHead>,
    vocabulary: usize,
    objective: &dyn RowObjective,
    scale: f32,
    gradient: bool,
) -> HeadPass {
    let chunk = chunk_rows(hidden.dims()[0], vocabulary);
    let sides = (hidden, weight);
    pass_by_chunks(
        sides, teacher, vocabulary, objective, scale, gradient, chunk,
    )
}

fn pass_by_chunks(
    (hidden, weight): (Tensor<2>, &Weight),
    teacher: Option<&TeacherHead>,
    vocabulary: usize,
    objective: &dyn RowObjective,
    scale: f32,
    gradient: bool,
    chunk: usize,
) -> HeadPass {
    let [rows, width] = hidden.dims();
    let [weight_rows, _] = weight.dims();
    let student = Side::new(hidden, weight, vocabulary);
    let teacher = teacher.map(|t| Side::new(t.hidden.clone(), &t.weight, vocabulary));
    let mut sink =
        gradient.then(|| GradientSink::new(&student, [rows, width], weight_rows, vocabulary));
    let mut terms = RowTerms::default();
    for_chunks(
        &student,
        teacher.as_ref(),
        rows,
        (vocabulary, chunk),
        |first, logits, teacher| {
            let values: Vec<RowTerms> = zip_rows(logits, teacher, vocabulary, |index, s, t| {
                let row_terms = objective.row(first + index, s, t, gradient);
                if gradient && scale != 1.0 {
                    for x in s {
                        *x *= scale;
                    }
                }
                row_terms
            });
            for value in values {
                terms += value;
            }
            if let Some(sink) = &mut sink {
                sink.add(&student, first, logits, vocabulary);
            }
        },
    );
    let (d_hidden, d_weight) = match sink {
        Some(sink) => sink.finish(rows, width, weight_rows),
        None => (None, None),
    };
    HeadPass {
        terms,
        d_hidden,
        d_weight,
    }
}

/// Calls `visit(row, student logits, teacher logits)` for every row, in parallel within a chunk,
/// and collects what it returns in row order. The logits may be overwritten.
pub fn head_rows<R: Send>(
    hidden: Tensor<2>,
    weight: &Weight,
    teacher: Option<&TeacherHead>,
    vocabulary: usize,
    visit: impl Fn(usize, &mut [f32], Option<&mut [f32]>) -> R + Sync,
) -> Vec<R> {
    let [rows, _] = hidden.dims();
    let student = Side::new(hidden, weight, vocabulary);
    let teacher = teacher.map(|t| Side::new(t.hidden.clone(), &t.weight, vocabulary));
    let mut results = Vec::with_capacity(rows);
    for_chunks(
        &student,
        teacher.as_ref(),
        rows,
        (vocabulary, chunk_rows(rows, vocabulary)),
        |first, logits, teacher| {
            results.extend(zip_rows(logits, teacher, vocabulary, |index, s, t| {
                visit(first + index, s, t)
            }));
        },
    );
    results
}

/// A scalar tensor of value `loss` whose gradient with respect to `x` is `d_x` times the incoming
/// gradient.
pub fn attach_gradient(x: Tensor<2>, loss: f32, d_x: Tensor<2>) -> Tensor<1> {
    if on_host(&x) {
        let gradient = primitive(d_x);
        return host1(x, Attached { loss, gradient });
    }
    // Value: x · g − stop(x · g) + loss; gradient: g.
    let linear = (x * d_x).sum();
    let offset = linear.clone().inner().neg() + loss;
    linear + Tensor::from_inner(offset)
}

/// A hidden matrix and a head, on the host or on a device.
// Two of them live at a time: a box would save nothing.
#[allow(clippy::large_enum_variant)]
enum Side {
    Host {
        hidden: FlexTensor,
        head: HostHead,
        width: usize,
    },
    Device {
        hidden: Tensor<2>,
        weight: Tensor<2>,
    },
}

/// A head on the host. Of both forms there is at least one.
struct HostHead {
    plain: Option<FlexTensor>,
    precision: Precision,
    /// Packed once for all chunks, where products go by tiles.
    packed: Option<Arc<PackedWeight>>,
}

impl HostHead {
    fn new(weight: &Weight, rows: usize) -> Self {
        match weight {
            Weight::Packed(packed) => Self {
                plain: None,
                precision: weight.precision(),
                packed: Some(packed.clone()),
            },
            Weight::Plain(tensor, precision) => {
                let plain = primitive(tensor.clone());
                let packed = match rows > MOST_ROWS || *precision != Precision::F32 {
                    true => PackedWeight::new(values(&plain), tensor.dims(), *precision),
                    false => None,
                };
                let packed = packed.map(Arc::new);
                Self {
                    plain: Some(plain),
                    precision: *precision,
                    packed,
                }
            }
        }
    }

    fn values(&self) -> &[f32] {
        let plain = self.plain.as_ref();
        values(plain.expect("a packed head has no gradient, and products by tiles only"))
    }
}

impl Side {
    fn new(hidden: Tensor<2>, weight: &Weight, vocabulary: usize) -> Self {
        let [rows, width] = hidden.dims();
        assert!(
            weight.dims()[0] >= vocabulary,
            "more vocabulary than weights"
        );
        match weight {
            Weight::Plain(weight, precision) if !on_host(&hidden) => {
                let weight = weight.clone().without_autodiff().narrow(0, 0, vocabulary);
                Self::Device {
                    hidden: precision.rounded(hidden.without_autodiff()),
                    weight: precision.rounded_weight(weight),
                }
            }
            _ => Self::Host {
                hidden: primitive(hidden),
                head: HostHead::new(weight, rows),
                width,
            },
        }
    }

    /// Logits of `count` rows from `first` on, written over `out`.
    fn logits(&self, first: usize, count: usize, vocabulary: usize, out: &mut Vec<f32>) {
        match self {
            Self::Host {
                hidden,
                head,
                width,
            } => {
                out.resize(count * vocabulary, 0.0);
                let h = host_rows(hidden, first, count, *width);
                if let Some(packed) = &head.packed {
                    packed.multiply(h, vocabulary, out);
                } else if count <= MOST_ROWS {
                    let h = &values(hidden)[first * width..(first + count) * width];
                    let w = &head.values()[..vocabulary * width];
                    let (into, space) = (Into::Replace, &mut Vec::new());
                    few_rows(h, count, w, vocabulary, *width, out, into, space);
                } else {
                    let w = Matrix::new(head.values(), vocabulary, *width, *width).transposed();
                    matmul(h, w, out, vocabulary, Into::Replace, head.precision);
                }
            }
            Self::Device { hidden, weight } => {
                let rows = hidden.clone().narrow(0, first, count);
                *out = to_host(rows.matmul(weight.clone().transpose()));
            }
        }
    }
}

fn host_rows(tensor: &FlexTensor, first: usize, count: usize, width: usize) -> Matrix<'_> {
    Matrix::new(&values(tensor)[first * width..], count, width, width)
}

/// Rows of a chunk: `rows` in as few chunks as the limit allows, all about the same size and a
/// multiple of what products take at once.
fn chunk_rows(rows: usize, vocabulary: usize) -> usize {
    let most = (CHUNK_LOGITS / vocabulary.max(1)).max(1);
    let chunks = rows.div_ceil(most).max(1);
    let even = rows.div_ceil(chunks);
    even.next_multiple_of(32).min(most).max(1)
}

fn for_chunks(
    student: &Side,
    teacher: Option<&Side>,
    rows: usize,
    (vocabulary, chunk): (usize, usize),
    mut each: impl FnMut(usize, &mut Vec<f32>, Option<&mut Vec<f32>>),
) {
    let (mut logits, mut teacher_logits) = (Vec::new(), Vec::new());
    for first in (0..rows).step_by(chunk) {
        let count = chunk.min(rows - first);
        student.logits(first, count, vocabulary, &mut logits);
        if let Some(teacher) = teacher {
            teacher.logits(first, count, vocabulary, &mut teacher_logits);
        }
        each(first, &mut logits, teacher.map(|_| &mut teacher_logits));
    }
}

fn zip_rows<R: Send>(
    logits: &mut [f32],
    teacher: Option<&mut Vec<f32>>,
    vocabulary: usize,
    f: impl Fn(usize, &mut [f32], Option<&mut [f32]>) -> R + Sync,
) -> Vec<R> {
    struct Row<'a, R> {
        student: &'a mut [f32],
        teacher: Option<&'a mut [f32]>,
        result: Option<R>,
    }
    let mut teachers = teacher.map(|teacher| teacher.chunks_exact_mut(vocabulary));
    let rows = logits.chunks_exact_mut(vocabulary).map(|student| Row {
        student,
        teacher: teachers.as_mut().and_then(Iterator::next),
        result: None,
    });
    let mut rows: Vec<Row<'_, R>> = rows.collect();
    for_each_chunk(&mut rows, 1, |index, rows| {
        for row in rows {
            row.result = Some(f(index, row.student, row.teacher.as_deref_mut()));
        }
    });
    rows.into_iter().filter_map(|row| row.result).collect()
}

/// Where the gradients of successive chunks add up.
#[allow(clippy::large_enum_variant)]
enum GradientSink {
    Host {
        d_hidden: Vec<f32>,
        d_weight: Vec<f32>,
        width: usize,
        /// The right operand W of dH = dZ W, packed once for all chunks, where products go by tiles.
        packed: Option<Packed>,
    },
    Device {
        d_hidden: Vec<Tensor<2>>,
        d_weight: Tensor<2>,
    },
}

impl GradientSink {
    fn new(
        student: &Side,
        [rows, width]: [usize; 2],
        weight_rows: usize,
        vocabulary: usize,
    ) -> Self {
        match student {
            Side::Host { head, .. } => Self::Host {
                d_hidden: vec![0.0; rows * width],
                d_weight: vec![0.0; weight_rows * width],
                width,
                packed: head.packed.as_ref().and_then(|_| {
                    let w = Matrix::new(head.values(), vocabulary, width, width);
                    let exactness = head.precision.exactness()?;
                    Some(Packed::right(w, exactness, Threads::All))
                }),
            },
            Side::Device { weight, .. } => Self::Device {
                d_hidden: Vec::new(),
                d_weight: Tensor::zeros([weight_rows, width], &weight.device()),
            },
        }
    }

    fn add(&mut self, student: &Side, first: usize, d_logits: &[f32], vocabulary: usize) {
        let count = d_logits.len() / vocabulary;
        match (self, student) {
            (
                Self::Host {
                    d_hidden,
                    d_weight,
                    width,
                    packed,
                },
                Side::Host { hidden, head, .. },
            ) => {
                let width = *width;
                let dz = Matrix::new(d_logits, count, vocabulary, vocabulary);
                let dh = &mut d_hidden[first * width..];
                if let Some(w) = packed {
                    let dz = Packed::left(dz, w.exactness(), Threads::All);
                    product(&dz, w, width, dh, width, Into::Replace, Threads::All);
                } else {
                    let w = Matrix::new(head.values(), vocabulary, width, width);
                    matmul(dz, w, dh, width, Into::Replace, head.precision);
                }
                let (h, dzt) = (host_rows(hidden, first, count, width), dz.transposed());
                matmul(dzt, h, d_weight, width, Into::Add, head.precision);
            }
            (Self::Device { d_hidden, d_weight }, Side::Device { hidden, weight }) => {
                let data = TensorData::new(d_logits.to_vec(), [count, vocabulary]);
                let dz = Tensor::<2>::from_data(data, &weight.device());
                d_hidden.push(dz.clone().matmul(weight.clone()));
                let rows = hidden.clone().narrow(0, first, count);
                let part = dz.transpose().matmul(rows);
                let whole = d_weight.clone();
                let common = whole.clone().narrow(0, 0, vocabulary) + part;
                let columns = common.dims()[1];
                *d_weight = whole.slice_assign([0..vocabulary, 0..columns], common);
            }
            _ => unreachable!("the sink was made for this student"),
        }
    }

    fn finish(
        self,
        rows: usize,
        width: usize,
        weight_rows: usize,
    ) -> (Option<Tensor<2>>, Option<Tensor<2>>) {
        match self {
            Self::Host {
                d_hidden, d_weight, ..
            } => {
                let tensor = |values, shape: [usize; 2]| {
                    let data = FlexTensor::from_data(TensorData::new(values, shape));
                    Some(Tensor::from_primitive::<Flex>(data))
                };
                (
                    tensor(d_hidden, [rows, width]),
                    tensor(d_weight, [weight_rows, width]),
                )
            }
            Self::Device { d_hidden, d_weight } => (Some(Tensor::cat(d_hidden, 0)), Some(d_weight)),
        }
    }
}

/// A scalar with a precomputed gradient.
#[derive(Debug)]
struct Attached {
    loss: f32,
    gradient: FlexTensor,
}

impl HostKernel for Attached {
    fn forward(&self, _inputs: &[View<'_>], _track: bool) -> Output {
        Output {
            data: vec![self.loss],
            shape: vec![1],
            saved: Vec::new(),
        }
    }

    fn backward(
        &self,
        _inputs: &[View<'_>],
        _saved: &[Vec<f32>],
        grad: &[f32],
        _needs: &[bool],
    ) -> Vec<Vec<f32>> {
        let factor = grad[0];
        let gradient = values(&self.gradient).iter();
        vec![gradient.map(|x| x * factor).collect()]
    }
}

/// Weighted cross-entropy against given tokens: Σ wᵢ · (−log softmax(zᵢ)(targetᵢ)).
///
/// Weights of one make it maximum likelihood; the derivatives of any loss on sequence
/// log-probabilities make it that loss's gradient. Terms: weighted sum, plain sum; the square of the
/// gradient stands with the second.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// The token of each row.
    pub targets: Arc<[u32]>,
    /// The weight of each row; one where none are given.
    pub weights: Option<Arc<[f32]>>,
}

impl RowObjective for CrossEntropy {
    fn row(
        &self,
        row: usize,
        student: &mut [f32],
        _teacher: Option<&mut [f32]>,
        gradient: bool,
    ) -> RowTerms {
        let target = self.targets[row] as usize;
        let weight = self.weights.as_ref().map_or(1.0, |weights| weights[row]);
        let lse = crate::math::log_sum_exp(student);
        let value = f64::from(lse) - f64::from(student[target]);
        if gradient {
            crate::math::exp_minus(student, lse);
            student[target] -= 1.0;
            if weight != 1.0 {
                for x in student.iter_mut() {
                    *x *= weight;
                }
            }
        }
        let square = match gradient {
            true => f64::from(crate::math::dot(student, student)),
            false => 0.0,
        };
        RowTerms {
            values: [f64::from(weight) * value, value, 0.0, 0.0],
            squares: [0.0, square, 0.0, 0.0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{both_paths_agree, random};
    use burn::tensor::activation::log_softmax;

    /// Weight of a row's cross-entropy in these tests.
    fn weight_of(row: usize) -> f32 {
        [1.0, 2.0, 0.5, 0.0, -1.0, 1.0, 3.0][row % 7]
    }

    fn target_of(row: usize) -> u32 {
        [0, 8, 3, 3, 1, 7, 2][(row + row / 7) % 7]
    }

    /// The same size of the loss, however many rows.
    fn scale_of(rows: usize) -> f32 {
        3.5 / rows as f32
    }

    fn chunked(hidden: Tensor<2>, weight: Tensor<2>, chunk: usize) -> Tensor<1> {
        let rows = hidden.dims()[0];
        let objective = CrossEntropy {
            targets: (0..rows).map(target_of).collect(),
            weights: Some((0..rows).map(weight_of).collect()),
        };
        let plain = Weight::from(weight.clone().without_autodiff());
        let sides = (hidden.clone().without_autodiff(), &plain);
        let scale = scale_of(rows);
        let pass = pass_by_chunks(sides, None, 9, &objective, scale, true, chunk);
        let (dh, dw) = (pass.d_hidden.unwrap(), pass.d_weight.unwrap());
        let value = scale * pass.terms.values[0] as f32;
        match hidden.is_autodiff() {
            true => attach_gradient(hidden, value, dh) + attach_gradient(weight, 0.0, dw),
            false => Tensor::from_floats([value], &hidden.device()),
        }
    }

    /// In one chunk and in several, the last of them shorter, with few rows and with enough of them
    /// for the general matrix product.
    #[test]
    fn chunked_head_equals_the_dense_one() {
        for (rows, chunk) in [(7, 100), (7, 3), (7, 1), (150, 70)] {
            // 11 weights rows of which 9 take part, as with a padded vocabulary.
            let inputs = [random([rows, 5], 1), random([11, 5], 2)];
            both_paths_agree(
                &inputs,
                |t| chunked(t[0].clone(), t[1].clone(), chunk).unsqueeze(),
                1e-3,
            );
            let device = burn::tensor::Device::flex();
            let [h, w] = [0, 1].map(|i| {
                let (values, shape) = inputs[i].clone();
                Tensor::<2>::from_data(TensorData::new(values, shape), &device)
            });
            let dense = log_softmax(h.clone().matmul(w.clone().narrow(0, 0, 9).transpose()), 1);
            let dense = to_host(dense);
            let want: f32 = (0..rows)
                .map(|row| {
                    -scale_of(rows) * weight_of(row) * dense[row * 9 + target_of(row) as usize]
                })
                .sum();
            let got = to_host(chunked(h, w, chunk))[0];
            assert!(
                (got - want).abs() < 1e-5 * want.abs().max(1.0),
                "{rows}, {chunk}: {got} against {want}"
            );
        }
    }

    /// The reported squares are those of the gradient that the pass leaves in the logits.
    #[test]
    fn the_square_is_that_of_the_gradient() {
        let objective = CrossEntropy {
            targets: [2].into(),
            weights: Some([1.5].into()),
        };
        let mut logits = [0.5f32, -1.0, 2.0, 0.25];
        let terms = objective.row(0, &mut logits, None, true);
        let square: f64 = logits.iter().map(|x| f64::from(x * x)).sum();
        assert!((terms.squares[1] - square).abs() < 1e-7);
        assert_eq!(terms.squares[0], 0.0);
    }
}
