//! The plumbing between Burn tensors and kernels on host slices.
//!
//! A kernel is written once as plain arithmetic on `&[f32]` ([`HostKernel`]). This file registers
//! it with Burn: on the Flex backend it runs directly; under autodiff its inputs, what it saved and
//! the kernel itself are kept for its hand-written backward. Inputs that are not tracked are
//! constants and receive no gradient.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Tensor, TensorData};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::FlexTensor;

static PORTABLE: AtomicBool = AtomicBool::new(false);

/// Whether the environment forces the portable compositions: `DISTIL_PORTABLE=1`.
fn asked_for() -> bool {
    static ASKED: OnceLock<bool> = OnceLock::new();
    *ASKED.get_or_init(|| std::env::var_os("DISTIL_PORTABLE").is_some_and(|value| value == "1"))
}

/// Forces the portable compositions on every device, the CPU included, for this process.
///
/// GPUs always run them; forcing them on the CPU is how they are tested without one.
pub fn force_portable(portable: bool) {
    PORTABLE.store(portable, Ordering::Relaxed);
}

/// Whether [`force_portable`], or `DISTIL_PORTABLE=1` in the environment, is in effect.
pub fn is_portable() -> bool {
    PORTABLE.load(Ordering::Relaxed) || asked_for()
}

/// Whether `tensor` is served by host kernels: an f32 tensor on the Flex backend.
pub(crate) fn on_host<const D: usize>(tensor: &Tensor<D>) -> bool {
    !is_portable()
        && tensor.dtype() == DType::F32
        && matches!(
            tensor.device().as_dispatch(),
            burn::backend::DispatchDevice::Flex(_) | burn::backend::DispatchDevice::Autodiff(_)
        )
}

/// One contiguous f32 input of a kernel.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// Row-major values.
    pub(crate) data: &'a [f32],
    /// Its dimensions.
    pub(crate) shape: [usize; 2],
}

/// What a kernel's forward gives back.
pub(crate) struct Output {
    /// Row-major values of the result.
    pub(crate) data: Vec<f32>,
    /// Dimensions of the result.
    pub(crate) shape: Vec<usize>,
    /// What backward needs besides inputs (e.g. inverse norms); empty where nothing is tracked.
    pub(crate) saved: Vec<Vec<f32>>,
}

/// An operation on host slices with a hand-written backward.
pub(crate) trait HostKernel: Debug + Send + Sync {
    /// Computes the result; fills `saved` only if `track`.
    fn forward(&self, inputs: &[View<'_>], track: bool) -> Output;

    /// Gradients with respect to each input, given the result's gradient.
    /// `needs[i]` says whether input `i` is tracked; others may be returned empty.
    fn backward(
        &self,
        inputs: &[View<'_>],
        saved: &[Vec<f32>],
        grad: &[f32],
        needs: &[bool],
    ) -> Vec<Vec<f32>>;
}

/// A shared kernel, as Burn's dispatch carries it.
pub(crate) type Kernel = Arc<dyn HostKernel>;

/// Kernels of one, two and three tensors as operations of a backend.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait HostOps: Backend {
    /// A kernel of one tensor.
    fn host1(a: FloatTensor<Self>, kernel: Kernel) -> FloatTensor<Self>;
    /// A kernel of two tensors.
    fn host2(a: FloatTensor<Self>, b: FloatTensor<Self>, kernel: Kernel) -> FloatTensor<Self>;
    /// A kernel of three tensors.
    fn host3(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        kernel: Kernel,
    ) -> FloatTensor<Self>;
}

impl HostOps for Flex {
    fn host1(a: FlexTensor, kernel: Kernel) -> FlexTensor {
        flex_tensor(run(&[a.to_contiguous()], &kernel, false))
    }
    fn host2(a: FlexTensor, b: FlexTensor, kernel: Kernel) -> FlexTensor {
        let inputs = [a.to_contiguous(), b.to_contiguous()];
        flex_tensor(run(&inputs, &kernel, false))
    }
    fn host3(a: FlexTensor, b: FlexTensor, c: FlexTensor, kernel: Kernel) -> FlexTensor {
        let inputs = [a.to_contiguous(), b.to_contiguous(), c.to_contiguous()];
        flex_tensor(run(&inputs, &kernel, false))
    }
}

impl<C: CheckpointStrategy> HostOps for Autodiff<Flex, C> {
    fn host1(a: FloatTensor<Self>, kernel: Kernel) -> FloatTensor<Self> {
        tracked::<1, C>([a], kernel)
    }
    fn host2(a: FloatTensor<Self>, b: FloatTensor<Self>, kernel: Kernel) -> FloatTensor<Self> {
        tracked::<2, C>([a, b], kernel)
    }
    fn host3(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        kernel: Kernel,
    ) -> FloatTensor<Self> {
        tracked::<3, C>([a, b, c], kernel)
    }
}

/// What a tracked kernel keeps between forward and backward.
#[derive(Clone, Debug)]
struct State<const N: usize> {
    inputs: [FlexTensor; N],
    saved: Arc<Vec<Vec<f32>>>,
    kernel: Kernel,
}

#[derive(Debug)]
struct HostBackward<const N: usize>;

impl<const N: usize> Backward<Flex, N> for HostBackward<N> {
    type State = State<N>;

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let state = ops.state;
        let needs = ops.parents.each_ref().map(Option::is_some);
        let views = state.inputs.each_ref().map(view);
        let results = state
            .kernel
            .backward(&views, &state.saved, values(&grad), &needs);
        for ((parent, input), result) in ops.parents.into_iter().zip(&state.inputs).zip(results) {
            if let Some(node) = parent {
                let shape = input.layout().shape().clone();
                let tensor = FlexTensor::from_data(TensorData::new(result, shape));
                grads.register::<Flex>(node.id, tensor);
            }
        }
    }
}

fn tracked<const N: usize, C: CheckpointStrategy>(
    inputs: [FloatTensor<Autodiff<Flex, C>>; N],
    kernel: Kernel,
) -> FloatTensor<Autodiff<Flex, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let inputs = inputs.map(|input| input.into_primitive().to_contiguous());
    match HostBackward::<N>
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let output = run(&inputs, &kernel, true);
            let state = State {
                inputs,
                saved: Arc::new(output.saved),
                kernel,
            };
            let result = FlexTensor::from_data(TensorData::new(output.data, output.shape));
            prep.finish(state, result)
        }
        OpsKind::UnTracked(prep) => prep.finish(flex_tensor(run(&inputs, &kernel, false))),
    }
}

fn run<const N: usize>(inputs: &[FlexTensor; N], kernel: &Kernel, track: bool) -> Output {
    kernel.forward(&inputs.each_ref().map(view), track)
}

fn flex_tensor(output: Output) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(output.data, output.shape))
}

/// The values of a contiguous f32 tensor, which is what [`primitive`] gives.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice::<f32>()
        .expect("host kernels take contiguous f32 tensors")
}

/// A tensor of rank one or two as rows of its last dimension.
fn view(tensor: &FlexTensor) -> View<'_> {
    let shape = tensor.layout().shape();
    let width = shape.last().copied().unwrap_or(1);
    let data = values(tensor);
    let rows = data.len().checked_div(width).unwrap_or(0);
    View {
        data,
        shape: [rows, width],
    }
}

pub(crate) fn host1<const A: usize, const R: usize>(
    a: Tensor<A>,
    kernel: impl HostKernel + 'static,
) -> Tensor<R> {
    Tensor::from_dispatch(<Dispatch as HostOps>::host1(
        a.into_dispatch(),
        Arc::new(kernel),
    ))
}

pub(crate) fn host2<const A: usize, const B: usize, const R: usize>(
    a: Tensor<A>,
    b: Tensor<B>,
    kernel: impl HostKernel + 'static,
) -> Tensor<R> {
    Tensor::from_dispatch(<Dispatch as HostOps>::host2(
        a.into_dispatch(),
        b.into_dispatch(),
        Arc::new(kernel),
    ))
}

pub(crate) fn host3<const A: usize, const R: usize>(
    a: Tensor<A>,
    b: Tensor<A>,
    c: Tensor<A>,
    kernel: impl HostKernel + 'static,
) -> Tensor<R> {
    Tensor::from_dispatch(<Dispatch as HostOps>::host3(
        a.into_dispatch(),
        b.into_dispatch(),
        c.into_dispatch(),
        Arc::new(kernel),
    ))
}

/// The Flex primitive of an untracked f32 tensor, contiguous; no copy where it already is.
pub(crate) fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    tensor
        .without_autodiff()
        .try_into_primitive::<Flex>()
        .expect("the caller checked that the tensor is on the Flex device")
        .to_contiguous()
}

/// The values of any tensor on the host, row-major.
///
/// # Panics
/// If the device fails to give its data back, or the tensor is not f32.
pub fn to_host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .try_into_vec::<f32>()
        .expect("models compute in f32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Without this the comparison of both paths would compare the portable one with itself.
    #[test]
    fn cpu_tensors_are_served_by_host_kernels() {
        let _turn = crate::testing::SWITCH
            .lock()
            .unwrap_or_else(|e| e.into_inner());
        for device in [Device::flex(), Device::flex().autodiff()] {
            let tensor = Tensor::<1>::from_floats([1.0], &device);
            assert_eq!(on_host(&tensor), !asked_for());
            force_portable(true);
            assert!(!on_host(&tensor));
            force_portable(false);
        }
    }
}
