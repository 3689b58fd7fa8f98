//! Which instructions this processor has, found once at run time.
//!
//! `DISTIL_INSTRUCTIONS` = `amx`, `avx512`, `avx2` or `portable` lets the kernels use no more than
//! that: to test what other machines run. Products of the `gemm` crate choose by themselves.

use std::sync::OnceLock;

/// Instruction sets, each with all that stand before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Whatever the program was compiled for.
    Portable,
    /// AVX2 with fused multiply–add.
    Avx2,
    /// AVX-512 F, BW, DQ, VL; on some processors with bf16 products ([`Processor::dot_bf16`]).
    Avx512,
    /// Tile registers with products of bf16 and of 8 bits.
    Amx,
}

/// What may be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processor {
    pub(crate) level: Level,
    /// AVX-512 BF16: `vdpbf16ps`.
    pub(crate) dot_bf16: bool,
    /// AVX-512 VNNI: `vpdpbusd`.
    pub(crate) dot_int8: bool,
}

/// This processor, as far as `DISTIL_INSTRUCTIONS` allows.
pub(crate) fn processor() -> Processor {
    static FOUND: OnceLock<Processor> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let most = match std::env::var("DISTIL_INSTRUCTIONS").as_deref() {
            Ok("portable") => Level::Portable,
            Ok("avx2") => Level::Avx2,
            Ok("avx512") => Level::Avx512,
            _ => Level::Amx,
        };
        let found = detect();
        Processor {
            level: found.level.min(most),
            dot_bf16: found.dot_bf16 && most >= Level::Avx512,
            dot_int8: found.dot_int8 && most >= Level::Avx512,
        }
    })
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Processor {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let level = match (avx2, avx512) {
        (_, true) if amx() => Level::Amx,
        (_, true) => Level::Avx512,
        (true, _) => Level::Avx2,
        _ => Level::Portable,
    };
    Processor {
        level,
        dot_bf16: avx512 && is_x86_feature_detected!("avx512bf16"),
        dot_int8: avx512 && is_x86_feature_detected!("avx512vnni"),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Processor {
    Processor {
        level: Level::Portable,
        dot_bf16: false,
        dot_int8: false,
    }
}

/// Whether the processor has tile registers with both products and the kernel lets this process use
/// them. Linux grants their state on request, to the whole process
/// (`arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`).
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    // Leaf 7, EDX: bit 22 AMX-BF16, bit 24 AMX-TILE, bit 25 AMX-INT8.
    #[allow(unused_unsafe)]
    // `__cpuid` became safe on x86-64 in newer compilers
    // SAFETY: every x86-64 processor has the cpuid instruction.
    #[allow(unsafe_code)]
    let has = unsafe {
        let all = 1 << 22 | 1 << 24 | 1 << 25;
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & all == all
    };
    if !has {
        return false;
    }
    let granted: i64;
    // SAFETY: a system call that changes nothing but a permission of this process; the registers
    // that the kernel overwrites are named.
    #[allow(unsafe_code)]
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => granted,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    granted == 0
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx() -> bool {
    false
}
