//! The sum of two gradients, in place.

use burn::backend::Flex;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::host::{on_host, primitive, values};

/// Values a task works on.
const BLOCK: usize = 64 * 1024;

/// `sum` + `part`, both untracked; on the CPU in the memory of `sum` if nobody else holds it.
///
/// # Panics
/// If the shapes differ.
pub fn add_in_place<const D: usize>(sum: Tensor<D>, part: Tensor<D>) -> Tensor<D> {
    assert_eq!(sum.dims(), part.dims(), "shapes differ");
    if !on_host(&sum) {
        return sum + part;
    }
    let (mut sum, part) = (primitive(sum), primitive(part));
    sum.storage_mut::<f32>()
        .par_chunks_mut(BLOCK)
        .zip(values(&part).par_chunks(BLOCK))
        .for_each(|(sum, part)| {
            for (sum, part) in sum.iter_mut().zip(part) {
                *sum += part;
            }
        });
    Tensor::from_primitive::<Flex>(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::to_host;
    use burn::tensor::Device;

    #[test]
    fn what_others_hold_stays_what_it_is() {
        let one = Tensor::<1>::from_floats([1.0, 2.0], &Device::flex());
        let kept = one.clone();
        let two = Tensor::<1>::from_floats([10.0, 20.0], &Device::flex());
        assert_eq!(to_host(add_in_place(one, two)), [11.0, 22.0]);
        assert_eq!(to_host(kept), [1.0, 2.0]);
    }
}
