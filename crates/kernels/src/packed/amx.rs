//! The micro-kernels for AMX: 32 × 32 sums in four tile registers.
//!
//! Written in assembly because the compiler's intrinsics for tiles are not stable yet.

use std::arch::asm;

use super::Operands;
use super::eight::EightBits;

/// Shapes of the eight tile registers, as `ldtilecfg` reads them (palette 1).
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Tile registers configured for this thread, until dropped.
pub(super) struct Configured;

impl Configured {
    /// Configures all eight registers as 16 rows of 64 bytes.
    ///
    /// Called only where `processor()` says that there is AMX.
    pub(super) fn begin() -> Self {
        let mut shapes = Shapes {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        shapes.row_bytes[..8].fill(64);
        shapes.rows[..8].fill(16);
        // SAFETY: the processor has AMX and the process may use it; `shapes` is valid.
        #[allow(unsafe_code)]
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack));
        }
        Self
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: gives the registers back; nothing reads them afterwards.
        #[allow(unsafe_code)]
        unsafe {
            asm!("tilerelease", options(nostack));
        }
    }
}

/// The accumulators' beginning: what is in memory, or zero.
macro_rules! begin {
    () => {
        concat!(
            "test {add:e}, {add:e}\n",
            "jz 3f\n",
            "tileloadd tmm0, [{c} + {stride}*1]\n",
            "tileloadd tmm1, [{c} + {stride}*1 + 64]\n",
            "tileloadd tmm2, [{lower} + {stride}*1]\n",
            "tileloadd tmm3, [{lower} + {stride}*1 + 64]\n",
            "jmp 4f\n",
            "3:\n",
            "tilezero tmm0\n",
            "tilezero tmm1\n",
            "tilezero tmm2\n",
            "tilezero tmm3\n",
            "4:",
        )
    };
}

/// Loads both left tiles, or both right tiles, of a part.
macro_rules! load {
    (left $part:literal) => {
        concat!(
            "tileloadd tmm4, [{a0} + {row}*1 + 1024*",
            $part,
            "]\n",
            "tileloadd tmm5, [{a1} + {row}*1 + 1024*",
            $part,
            "]",
        )
    };
    (right $part:literal) => {
        concat!(
            "tileloadd tmm6, [{b0} + {row}*1 + 1024*",
            $part,
            "]\n",
            "tileloadd tmm7, [{b1} + {row}*1 + 1024*",
            $part,
            "]",
        )
    };
}

/// The four products of what is loaded.
macro_rules! multiply {
    () => {
        "tdpbf16ps tmm0, tmm4, tmm6\n\
         tdpbf16ps tmm1, tmm4, tmm7\n\
         tdpbf16ps tmm2, tmm5, tmm6\n\
         tdpbf16ps tmm3, tmm5, tmm7"
    };
}

/// The same of whole numbers in 8 bits.
macro_rules! multiply_eight {
    () => {
        "tdpbssd tmm0, tmm4, tmm6\n\
         tdpbssd tmm1, tmm4, tmm7\n\
         tdpbssd tmm2, tmm5, tmm6\n\
         tdpbssd tmm3, tmm5, tmm7"
    };
}

/// The next step, `parts` tiles on.
macro_rules! advance {
    ($parts:literal) => {
        concat!(
            "add {a0}, 1024*",
            $parts,
            "\n",
            "add {a1}, 1024*",
            $parts,
            "\n",
            "add {b0}, 1024*",
            $parts,
            "\n",
            "add {b1}, 1024*",
            $parts,
            "\n",
            "dec {steps}\n",
            "jnz 4b",
        )
    };
}

/// Writes the accumulators back. Where there is one block of rows, the lower half goes to a buffer.
macro_rules! end {
    () => {
        "tilestored [{c} + {stride}*1], tmm0\n\
         tilestored [{c} + {stride}*1 + 64], tmm1\n\
         tilestored [{lower} + {stride}*1], tmm2\n\
         tilestored [{lower} + {stride}*1 + 64], tmm3"
    };
}

/// The assembly of a micro-kernel with two blocks of rows.
macro_rules! kernel {
    ($o:ident, $c:ident, $stride:ident, $add:ident, $($body:expr),+) => {
        asm!(
            begin!(),
            $($body,)+
            end!(),
            add = in(reg) u32::from($add),
            c = in(reg) $c,
            lower = in(reg) $c.wrapping_add(16 * $stride),
            stride = in(reg) 4 * $stride,
            row = in(reg) 64_usize,
            a0 = inout(reg) $o.a => _,
            a1 = inout(reg) $o.a.wrapping_add($o.a_next) => _,
            b0 = inout(reg) $o.b => _,
            b1 = inout(reg) $o.b.wrapping_add($o.b_next) => _,
            steps = inout(reg) $o.steps => _,
            options(nostack),
        )
    };
}

/// Asks for the right tiles some steps ahead, which come from memory where every tile is read once.
macro_rules! prefetch {
    () => {
        concat!(prefetch!("b0"), prefetch!("b1"),)
    };
    ($b:literal) => {
        concat!(
            prefetch!($b, "0"),
            prefetch!($b, "1"),
            prefetch!($b, "2"),
            prefetch!($b, "3"),
            prefetch!($b, "4"),
            prefetch!($b, "5"),
            prefetch!($b, "6"),
            prefetch!($b, "7"),
            prefetch!($b, "8"),
            prefetch!($b, "9"),
            prefetch!($b, "10"),
            prefetch!($b, "11"),
            prefetch!($b, "12"),
            prefetch!($b, "13"),
            prefetch!($b, "14"),
            prefetch!($b, "15"),
        )
    };
    ($b:literal, $line:literal) => {
        concat!("prefetcht1 [{", $b, "} + 1024*12 + 64*", $line, "]\n")
    };
}

/// Numbers rounded to bf16, of which each right tile is used once; see [`super::Block`].
///
/// # Safety
/// As [`rounded`].
#[allow(unsafe_code)]
pub(super) unsafe fn streamed(o: Operands, c: *mut f32, stride: usize, add: bool) {
    // SAFETY: the caller's; a prefetch reads nothing and cannot fault, whatever the address.
    unsafe {
        if o.rows == 1 {
            return one_row(o, c, stride, add);
        }
        kernel!(
            o,
            c,
            stride,
            add,
            prefetch!(),
            load!(left 0),
            load!(right 0),
            multiply!(),
            advance!(1)
        );
    }
}

/// A micro-kernel of whole numbers in 8 bits, see `eight.rs`; what stands behind its name comes before
/// the loads of every step.
macro_rules! eight_bits {
    ($name:ident, $ahead:expr) => {
        /// # Safety
        /// As in `eight.rs`; tile registers must be [`Configured`] on this thread.
        #[allow(unsafe_code)]
        pub(super) unsafe fn $name(o: Operands<EightBits>, sums: *mut i32) {
            let (stride, add) = (32_usize, false);
            // SAFETY: the caller's; a prefetch reads nothing and cannot fault, whatever the address.
            unsafe {
                kernel!(
                    o,
                    sums,
                    stride,
                    add,
                    $ahead,
                    load!(left 0),
                    load!(right 0),
                    multiply_eight!(),
                    advance!(1)
                );
            }
        }
    };
}

eight_bits!(eight, "");
// Each right tile comes from memory.
eight_bits!(eight_streamed, prefetch!());

/// Numbers rounded to bf16; see [`super::Block`].
///
/// # Safety
/// As there; tile registers must be [`Configured`] on this thread.
#[allow(unsafe_code)]
pub(super) unsafe fn rounded(o: Operands, c: *mut f32, stride: usize, add: bool) {
    // SAFETY: the caller's.
    unsafe {
        if o.rows == 1 {
            return one_row(o, c, stride, add);
        }
        kernel!(
            o,
            c,
            stride,
            add,
            load!(left 0),
            load!(right 0),
            multiply!(),
            advance!(1)
        );
    }
}

/// Numbers as sums of three: the six products of the module's first lines; see [`super::Block`].
///
/// # Safety
/// As [`rounded`].
#[allow(unsafe_code)]
pub(super) unsafe fn whole(o: Operands, c: *mut f32, stride: usize, add: bool) {
    if o.rows == 1 {
        // The second block of rows is the first once more, its result thrown away.
        let mut both = [0.0f32; 32 * 32];
        let upper = both.chunks_exact_mut(32).take(16).enumerate();
        // SAFETY: 16 rows of 32 numbers are the caller's.
        unsafe {
            if add {
                for (i, row) in upper {
                    row.copy_from_slice(std::slice::from_raw_parts(c.add(i * stride), 32));
                }
            }
            whole(
                Operands {
                    a_next: 0,
                    rows: 2,
                    ..o
                },
                both.as_mut_ptr(),
                32,
                add,
            );
            for (i, row) in both.chunks_exact(32).take(16).enumerate() {
                std::slice::from_raw_parts_mut(c.add(i * stride), 32).copy_from_slice(row);
            }
        }
        return;
    }
    // SAFETY: the caller's.
    unsafe {
        kernel!(
            o,
            c,
            stride,
            add,
            load!(left 0),
            load!(right 0),
            multiply!(),
            load!(right 1),
            multiply!(),
            load!(right 2),
            multiply!(),
            load!(left 1),
            load!(right 1),
            multiply!(),
            load!(right 0),
            multiply!(),
            load!(left 2),
            multiply!(),
            advance!(3)
        );
    }
}

/// One block of rows: what decoding a few sequences has.
#[allow(unsafe_code)]
unsafe fn one_row(o: Operands, c: *mut f32, stride: usize, add: bool) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "test {add:e}, {add:e}",
            "jz 3f",
            "tileloadd tmm0, [{c} + {stride}*1]",
            "tileloadd tmm1, [{c} + {stride}*1 + 64]",
            "jmp 4f",
            "3:",
            "tilezero tmm0",
            "tilezero tmm1",
            "4:",
            prefetch!(),
            "tileloadd tmm4, [{a0} + {row}*1]",
            "tileloadd tmm6, [{b0} + {row}*1]",
            "tileloadd tmm7, [{b1} + {row}*1]",
            "add {a0}, 1024",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "dec {steps}",
            "jnz 4b",
            "tilestored [{c} + {stride}*1], tmm0",
            "tilestored [{c} + {stride}*1 + 64], tmm1",
            add = in(reg) u32::from(add),
            c = in(reg) c,
            stride = in(reg) 4 * stride,
            row = in(reg) 64_usize,
            a0 = inout(reg) o.a => _,
            b0 = inout(reg) o.b => _,
            b1 = inout(reg) o.b.wrapping_add(o.b_next) => _,
            steps = inout(reg) o.steps => _,
            options(nostack),
        );
    }
}
