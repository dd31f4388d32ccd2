//! How many bits the model computes with.

/// The form of the numbers that the model's products are made of. Sums are of 32 bits in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    Fp32,
    /// 16-bit floating point in the form of bfloat16: the exponents of 32 bits, so that nothing overflows, and 8
    /// significant bits.
    ///
    /// Not IEEE half precision, in which candle's own BERT answers NaN.
    Fp16,
    /// 8-bit integers: weights scaled by column, activations by token as they come.
    Int8,
}

impl Precision {
    /// Its name, as the configuration has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
