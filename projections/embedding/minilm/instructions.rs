//! The sets of instructions that the forward pass is written for, and which of them this processor has.

use crate::embedding::Precision;

#[cfg(target_arch = "x86_64")]
use super::reduced_amx as amx;

/// A set of instructions that the forward pass is written for.
///
/// [`available`](Self::available) has their order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Plain loops, for every processor.
    Portable,
    /// AVX2 with FMA, on x86-64.
    Avx2,
    /// AVX2 with the 8-bit products of AVX-VNNI.
    AvxVnni,
    /// AVX-512F with AVX2 and FMA, on x86-64.
    Avx512,
    /// AVX-512 with the 8-bit products of VNNI.
    Avx512Vnni,
    /// AVX-512 with the 16-bit products of BF16.
    ///
    /// On an Intel processor (Sapphire Rapids) a batch took nearly twice as long with it as with rounded numbers of 32
    /// bits, which are preferred there. On AMD's it is preferred, unmeasured.
    Avx512Bf16,
    /// AMX: products of tiles of 16 rows, of 16-bit and 8-bit numbers; AVX-512 with BF16 for the rest.
    Amx,
}

/// The vectors that a set's arithmetic with 32 bits runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lanes {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl InstructionSet {
    /// What this processor has for `precision`; the last one is the fastest.
    pub fn available(precision: Precision) -> Vec<Self> {
        let mut sets = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        sets.extend(on_x86(precision));
        #[cfg(not(target_arch = "x86_64"))]
        let _ = precision;
        sets
    }

    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "plain loops",
            Self::Avx2 => "AVX2",
            Self::AvxVnni => "AVX-VNNI",
            Self::Avx512 => "AVX-512",
            Self::Avx512Vnni => "AVX-512 VNNI",
            Self::Avx512Bf16 => "AVX-512 BF16",
            Self::Amx => "AMX",
        }
    }

    /// Whether it multiplies 16-bit numbers; the others compute with them in 32 bits.
    pub(super) const fn multiplies_bf16(self) -> bool {
        matches!(self, Self::Avx512Bf16 | Self::Amx)
    }

    pub(super) const fn lanes(self) -> Lanes {
        match self {
            Self::Portable => Lanes::Portable,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 | Self::AvxVnni => Lanes::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Vnni | Self::Avx512Bf16 | Self::Amx => Lanes::Avx512,
            #[cfg(not(target_arch = "x86_64"))]
            _ => Lanes::Portable,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn on_x86(precision: Precision) -> Vec<InstructionSet> {
    let mut sets = Vec::new();
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return sets;
    }
    let avx512 = is_x86_feature_detected!("avx512f");
    // Wider than the AVX-512 that kernels of 32 bits need: bytes, and vectors of 256 bits.
    let with_bytes = avx512 && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl");
    let bf16 = with_bytes && is_x86_feature_detected!("avx512bf16");
    let mut add = |set, has: bool| sets.extend(has.then_some(set));
    add(InstructionSet::Avx2, true);
    match precision {
        Precision::Fp32 => add(InstructionSet::Avx512, avx512),
        Precision::Fp16 => {
            let fast = is_amd();
            add(InstructionSet::Avx512Bf16, bf16 && !fast);
            add(InstructionSet::Avx512, avx512);
            add(InstructionSet::Avx512Bf16, bf16 && fast);
        }
        Precision::Int8 => {
            add(InstructionSet::AvxVnni, is_x86_feature_detected!("avxvnni"));
            add(InstructionSet::Avx512Vnni, with_bytes && is_x86_feature_detected!("avx512vnni"));
        }
    }
    add(InstructionSet::Amx, precision != Precision::Fp32 && bf16 && amx::granted());
    sets
}

#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}
